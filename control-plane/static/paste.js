// Sealed paste: what a person types is sealed to the device's key here, and only ciphertext leaves the page. Whoever uses it
// trusts the board, which this script and the key come from; `board paste` needs no such trust.
//
// HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message. The bytes that it is bound
// to are those of `shared/src/crypto/seal.rs`; both are checked against the same files of `shared/testdata`.

import { tell } from "./field.js";

const utf8 = (text) => new TextEncoder().encode(text);
const cat = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));
const unhex = (text) => Uint8Array.from(text.match(/[0-9a-f]{2}/g), (byte) => parseInt(byte, 16));
const id = (uuid) => unhex(uuid.replaceAll("-", ""));
const part = (text) => cat(big(utf8(text).length, 4), utf8(text));

function big(value, size) {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(value));
  return new Uint8Array(view.buffer, 8 - size);
}

async function hmac(key, ...data) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, cat(...data)));
}

// HKDF under the labels of a suite. No salt is as many zeros as the hash is long (RFC 5869), as a key of no bytes isn't
// taken; and nothing here is longer than the one block that is expanded.
const labelled = (name, ...ids) => {
  const suite = cat(utf8("HPKE-v1"), utf8(name), ...ids.map((number) => big(number, 2)));
  return {
    extract: (salt, label, input) => hmac(salt ?? new Uint8Array(32), suite, utf8(label), input),
    expand: async (key, label, info, size) => (await hmac(key, big(size, 2), suite, utf8(label), info, [1])).slice(0, size),
  };
};
const kem = labelled("KEM", 0x20);
const hpke = labelled("HPKE", 0x20, 1, 2);

// `BSD1`, encapsulated key, ciphertext with its tag. `pair` is for known vectors; otherwise it is fresh each time.
export async function seal(recipient, info, aad, plain, pair) {
  const { subtle } = crypto;
  const theirs = await subtle.importKey("raw", recipient, "X25519", false, []);
  const ours = pair ?? (await subtle.generateKey("X25519", false, ["deriveBits"]));
  const enc = new Uint8Array(await subtle.exportKey("raw", ours.publicKey));
  const dh = await subtle.deriveBits({ name: "X25519", public: theirs }, ours.privateKey, 256);
  const prk = await kem.extract(null, "eae_prk", new Uint8Array(dh));
  const secret = await kem.expand(prk, "shared_secret", cat(enc, recipient), 32);
  const context = cat([0], await hpke.extract(null, "psk_id_hash", []), await hpke.extract(null, "info_hash", info));
  const schedule = await hpke.extract(secret, "secret", []);
  const iv = await hpke.expand(schedule, "base_nonce", context, 12);
  const key = await subtle.importKey("raw", await hpke.expand(schedule, "key", context, 32), "AES-GCM", false, ["encrypt"]);
  return cat(utf8("BSD1"), enc, new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv, additionalData: aad }, key, plain)));
}

// What a paste is bound to: `info` and `aad`. A pasted value has version 0.
export async function bound({ client, device, component, slot, delivery, expires, key }) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", unhex(key)));
  const info = cat(utf8("board/paste/v1"), id(client), id(device), hash);
  return { info, aad: cat(part(component), part(slot), part("client-supplied"), big(0, 8), id(delivery), big(expires, 8)) };
}

// A UUIDv7: the device remembers the newest.
function newId(now) {
  const bytes = cat(big(now, 6), crypto.getRandomValues(new Uint8Array(10)));
  bytes[6] = (bytes[6] & 15) | 112;
  bytes[8] = (bytes[8] & 63) | 128;
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Pastes expire by the board's clock.
const skew = Date.parse(document.querySelector('meta[name="now"]')?.content) - Date.now() || 0;
const MINUTES = 5 * 60000;

async function send({ to, ...place }, value) {
  const now = Date.now() + skew;
  const paste = { ...place, delivery: newId(now), expires: Math.round((now + MINUTES) * 1000) };
  const { info, aad } = await bound(paste);
  const sealed = await seal(unhex(paste.key), info, aad, value);
  const { delivery, component, slot, expires } = paste;
  const body = { delivery_id: delivery, component, slot, expires, sealed: btoa(String.fromCharCode(...sealed)) };
  const headers = { accept: "application/json, application/problem+json", "content-type": "application/json" };
  return fetch(to, { method: "POST", redirect: "error", cache: "no-store", headers, body: JSON.stringify(body) });
}

// The field has no name and the form no address: what isn't sealed has no way out of the page.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches(".sealed-paste")) return;
  event.preventDefault();
  const field = form.querySelector("input");
  const button = form.querySelector("button");
  const said = form.querySelector("output");
  const value = utf8(field.value);
  field.value = "";
  tell(field, "");
  button.disabled = true;
  said.textContent = "Sealing…";
  let refused;
  try {
    const answer = await send({ ...form.dataset }, value);
    if (!answer.ok) refused = (await answer.json()).detail;
  } catch (error) {
    refused =
      crypto.subtle && error.name !== "NotSupportedError"
        ? "The board didn't answer. See whether the Mac has it, then try again."
        : "This browser can't seal: it needs a current one, and the board over TLS. Nothing was sent.";
  }
  value.fill(0);
  button.disabled = false;
  said.textContent = refused ? "" : "The Mac has it.";
  if (refused) tell(field, refused);
  else form.closest("details").querySelector("summary").focus();
});
