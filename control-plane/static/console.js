// What the pages gain with JavaScript: liveness, times that stay right, four boxes that take one paste, and copying. Every
// page is complete without it. Nothing here makes HTML from data: the server sends whole fragments and they are patched in.

import { tell } from "./field.js";

const root = document.documentElement;
root.classList.add("js");

// Times. The words follow the rules of `web/moment.rs`; the clock is the board's, not the computer's.

const skew = Date.parse(document.querySelector('meta[name="now"]')?.content) - Date.now() || 0;

function words(at) {
  const away = (Date.now() + skew - at) / 1000;
  const seconds = Math.floor(Math.abs(away));
  if (seconds < 5) return "just now";
  if (seconds >= 2592000) return null;
  const [number, unit] =
    seconds < 60 ? [seconds, "second"]
    : seconds < 3600 ? [Math.floor(seconds / 60), "minute"]
    : seconds < 86400 ? [Math.floor(seconds / 3600), "hour"]
    : [Math.floor(seconds / 86400), "day"];
  const span = `${number} ${unit}${number === 1 ? "" : "s"}`;
  return away < 0 ? `in ${span}` : `${span} ago`;
}

function tellTime() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = words(Date.parse(time.dateTime));
    if (text && text !== time.textContent) time.textContent = text;
  }
}
setInterval(tellTime, 10000);

// One note at the edge of the window, for what has to be said without moving the page.

const note = document.createElement("div");
note.className = "live-note";
note.setAttribute("role", "status");
document.body.append(note);

function say(text, label, act) {
  if (note.dataset.text === text) return;
  note.dataset.text = text;
  note.replaceChildren();
  if (!text) return;
  const span = document.createElement("span");
  span.textContent = text;
  note.append(span);
  if (!label) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", act);
  note.append(button);
}

// Live regions. `src` answers with server-sent events: each message is the whole fragment as the server renders it (also
// the first one after every connect, so a gap heals itself); `title`, `favicon` ("needs" or "calm") and `approvals` (a
// number) go to the document.

// A password that the browser filled in by itself is nobody's typing.
const FIELDS = "input:not([type=hidden], [name=step_up_password]), textarea, select";

class LiveRegion extends HTMLElement {
  #source = null;
  #lostAt = null;
  #tries = 0;
  #timer = 0;
  #held = null;

  constructor() {
    super();
    this.addEventListener("focusout", () => setTimeout(() => this.#release()));
    this.addEventListener("reset", () => setTimeout(() => this.#release()));
    addEventListener("pagehide", () => this.#source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.#open());
    addEventListener("online", () => this.#lostAt && this.#open());
    this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    const source = (this.#source = new EventSource(this.getAttribute("src")));
    source.addEventListener("open", () => this.#live());
    source.addEventListener("error", () => this.#lost());
    source.addEventListener("message", (event) => this.#arrive(event.data));
    source.addEventListener("title", (event) => (document.title = event.data));
    source.addEventListener("favicon", (event) => {
      const icon = document.getElementById("favicon");
      const href = event.data.trim() === "needs" ? icon.dataset.needs : icon.dataset.calm;
      if (icon.getAttribute("href") !== href) icon.href = href;
    });
    source.addEventListener("approvals", (event) => {
      const count = document.getElementById("to-approve");
      if (!count) return;
      count.querySelector("b").textContent = event.data;
      count.hidden = event.data === "0";
    });
  }

  #live() {
    if (this.#lostAt && this.#held === null) say("");
    this.#lostAt = null;
    this.#tries = 0;
    root.dataset.live = "on";
  }

  // The browser tries again by itself after a cut, but not after an answer such as 502: then it is up to us. A cut that
  // heals within two seconds isn't worth a word.
  #lost() {
    const since = (this.#lostAt ??= new Date());
    setTimeout(() => {
      if (this.#lostAt !== since) return;
      root.dataset.live = "off";
      const clock = since.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
      say(`Not live since ${clock}; trying again`, "Reload", () => location.reload());
    }, 2000);
    if (this.#source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#timer);
    const wait = Math.min(15000, 1000 * 2 ** this.#tries++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  #arrive(html) {
    if (this.#busy()) {
      this.#held = html;
      say("News waits while you fill in the form", "Show it", () => this.#show());
      return;
    }
    this.#held = html;
    this.#show();
  }

  #release() {
    if (this.#held !== null && !this.#busy()) this.#show();
  }

  #show() {
    const template = document.createElement("template");
    template.innerHTML = this.#held;
    this.#held = null;
    const focused = this.contains(document.activeElement) && document.activeElement;
    const steady = this.querySelector("[data-steady]");
    const height = steady?.offsetHeight;
    const card = steady?.querySelector("details")?.id;
    const lines = [...this.querySelectorAll(".step")].map((line) => [line, line.getBoundingClientRect().height]);
    const folds = new Set(this.querySelectorAll(".todo"));
    kept.clear();
    patch(this, template.content);
    if (lines.length) for (const fold of this.querySelectorAll(".todo")) if (!folds.has(fold)) fold.open = false;
    for (const form of [...this.querySelectorAll("form")].filter(dirty)) unfold(form);
    if (focused && document.activeElement === document.body) {
      const target = focused.isConnected ? focused : this;
      if (target === this) this.tabIndex = -1;
      else unfold(focused);
      target.focus({ preventScroll: true });
    }
    if (steady?.isConnected) hold(steady, height, card);
    for (const [line, before] of lines)
      if (line.getBoundingClientRect().height < before - 0.5) line.style.minHeight = `${before}px`;
    if (!this.#lostAt) say("");
    tellTime();
    document.querySelectorAll("form.approve").forEach(gate);
  }

  #busy() {
    const form = this.contains(document.activeElement) && document.activeElement.closest("form");
    if (form && form.querySelector(FIELDS)) return true;
    return [...this.querySelectorAll("form")].some(dirty);
  }
}

// The card on top never moves what is under it: it doesn't shrink, and a card that came and is too high for the place comes
// folded. A click on a summary in it gives that up.
function hold(steady, height, card) {
  steady.style.minHeight = `${height}px`;
  const came = steady.querySelector("details");
  if (!came || came.id === card || steady.offsetHeight <= height) return;
  if (!came.contains(document.activeElement) && ![...came.querySelectorAll("form")].some(dirty)) came.open = false;
}

// A step's line doesn't shrink either, until a click; a link to one opens it.
document.addEventListener("click", (event) => {
  const steady = event.target.closest("[data-steady]");
  if (steady && event.target.closest("summary")) steady.style.minHeight = "";
  for (const line of document.querySelectorAll(".step[style]")) line.style.minHeight = "";
  const link = event.target.closest("a[href^='#']");
  const fold = link && document.getElementById(link.hash.slice(1))?.querySelector(".todo");
  if (fold) fold.open = true;
});

function unfold(node) {
  for (let fold = node.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
}

const dirty = (form) =>
  [...form.querySelectorAll(FIELDS)].some((field) =>
    field.matches("[type=checkbox], [type=radio]") ? field.checked !== field.defaultChecked : field.value !== (field.defaultValue ?? field.value));

// Makes `old`'s children like `fresh`'s and keeps every element that is still there: so focus, selection, scroll positions
// and opened details stay. Elements with an id are the same if the id is; a manual step's card is also the same when it
// moves between its line and the top.
const kept = new Map();

function patch(old, fresh) {
  const ids = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    while (next?.id && !ids.has(next.id)) next = drop(next);
    const same = child.id ? [...old.children].find((other) => other.id === child.id) : counterpart(next, child);
    if (!same || same.nodeName !== child.nodeName) {
      same?.remove();
      old.insertBefore(child, next?.parentNode === old ? next : null);
      child.querySelectorAll?.(".manual").forEach(adopt);
    } else {
      if (same === next) next = next.nextSibling;
      else move(old, same, next);
      renew(same, child);
    }
  }
  while (next) next = drop(next);
}

function adopt(card) {
  const same = kept.get(card.id) ?? [...document.querySelectorAll(".manual")].find((other) => other !== card && other.id === card.id);
  if (!same) return;
  move(card.parentNode, same, card);
  card.remove();
  renew(same, card);
}

// `moveBefore` keeps the focus, but not every browser has it, and it can't take what was removed.
function move(parent, node, before) {
  if (parent.moveBefore && node.isConnected) parent.moveBefore(node, before);
  else parent.insertBefore(node, before);
}

// What an element is, not how it is: the class that isn't a state.
const kind = (node) => node.classList && [...node.classList].find((name) => !name.startsWith("is-"));
const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && !a.id && !b.id && kind(a) === kind(b);

function counterpart(next, child) {
  while (next && !alike(next, child)) next = child.nodeType === Node.ELEMENT_NODE ? next.nextSibling : null;
  return next;
}

function drop(node) {
  const next = node.nextSibling;
  for (const card of node.querySelectorAll?.(".manual") ?? []) kept.set(card.id, card);
  node.remove();
  return next;
}

function renew(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  // What a click did is said until the next one.
  if (old.nodeName === "OUTPUT") return;
  // What a person typed, or was told about it, isn't taken away.
  if (old.nodeName === "FORM" && (dirty(old) || old.querySelector("[aria-invalid=true]"))) return;
  const own = old.nodeName === "DETAILS" ? "open" : "";
  for (const { name } of [...old.attributes]) if (name !== own && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== own && old.getAttribute(name) !== value) old.setAttribute(name, value);
  patch(old, fresh);
}

customElements.define("live-region", LiveRegion);

// The fingerprint: four boxes of four characters. A paste fills them all; Approve waits for sixteen. The board checks anyway.

const clean = (text) => text.toUpperCase().replace(/[^\p{L}\p{N}]/gu, "");
const boxesOf = (form) => [...form.querySelectorAll("input[name=fingerprint]")];

function gate(form) {
  const typed = boxesOf(form).map((box) => clean(box.value)).join("");
  form.querySelector("button").disabled = typed.length !== 16;
}

document.addEventListener("input", (event) => {
  const box = event.target;
  if (box.name !== "fingerprint" || event.isComposing) return;
  const boxes = boxesOf(box.form);
  const pasted = event.inputType !== "insertText" && !event.inputType?.startsWith("delete");
  let text = clean(box.value);
  let at = boxes.indexOf(box);
  if (text.length >= 16 && pasted) at = 0;
  if (text.length > 4) {
    const spills = pasted || at + 1 >= boxes.length ? pasted : boxes[at + 1].value === "";
    if (!spills) text = text.slice(0, 4);
    for (; text && at < boxes.length; at++, text = text.slice(4)) boxes[at].value = text.slice(0, 4);
    boxes[Math.min(at, boxes.length) - 1].focus();
  } else {
    if (box.value !== text) {
      const caret = clean(box.value.slice(0, box.selectionStart)).length;
      box.value = text;
      box.setSelectionRange(caret, caret);
    }
    const full = text.length === 4 && box.selectionStart === 4 && !event.inputType?.startsWith("delete");
    if (full && at + 1 < boxes.length && boxes[at + 1].value.length < 4) boxes[at + 1].focus();
  }
  gate(box.form);
});

document.addEventListener("keydown", (event) => {
  const box = event.target;
  if (event.key !== "Backspace" || box.name !== "fingerprint" || box.value) return;
  const before = boxesOf(box.form)[boxesOf(box.form).indexOf(box) - 1];
  if (!before) return;
  event.preventDefault();
  before.focus();
  before.setSelectionRange(before.value.length, before.value.length);
});

document.querySelectorAll("form.approve").forEach(gate);

// Copying: only what is public. Without a clipboard the text is selected, ready for the keyboard.

const spoken = document.createElement("p");
spoken.className = "vh";
spoken.setAttribute("role", "status");
document.body.append(spoken);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("span:not(.vh)");
  const before = (button.dataset.label ??= label.textContent);
  try {
    await navigator.clipboard.writeText(source.textContent);
    label.textContent = "Copied";
    spoken.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    label.textContent = "Selected";
    spoken.textContent = "The browser didn't allow copying. The text is selected: copy it with the keyboard.";
  }
  setTimeout(() => {
    label.textContent = before;
    spoken.textContent = "";
  }, 3000);
});

// Copying a secret of ours: from the answer into the clipboard, never into the page. The clipboard takes a promise, because
// Safari forgets the click while the answer is on its way.

class SecretCopy extends HTMLElement {
  // Once for each element: it is connected again whenever it moves.
  constructor() {
    super();
    this.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#copy(event.target);
    });
  }

  async #copy(form) {
    const [button, said] = form.querySelectorAll(".acts > *");
    if (button.disabled) return;
    const { reason, step_up_password: password } = form.elements;
    tell(reason, "");
    tell(password, "");
    if (!navigator.clipboard?.write || !window.ClipboardItem) {
      said.textContent = "This browser can't copy from here: it needs a current one, and the board over TLS. Nothing was copied.";
      return;
    }
    if (password.closest(".field").hidden) password.value = "";
    said.textContent = "Copying…";
    button.disabled = true;
    let arrived = false;
    let refused = null;
    const value = fetch(form.action, {
      method: "POST",
      mode: "same-origin",
      redirect: "error",
      cache: "no-store",
      headers: { accept: "text/plain, application/problem+json" },
      body: new URLSearchParams(new FormData(form)),
    }).then(async (answer) => {
      if (!answer.ok) {
        refused = await answer.json();
        throw new Error(refused.title);
      }
      arrived = true;
      return new Blob([await answer.arrayBuffer()], { type: "text/plain" });
    });
    try {
      await navigator.clipboard.write([new ClipboardItem({ "text/plain": value })]);
      form.reset();
      password.closest(".field").hidden = true;
      said.textContent = "Copied. Paste it now, then copy something else.";
    } catch {
      await value.catch(() => {});
      said.textContent = "";
      if (refused?.type === "urn:board:step-up") {
        password.closest(".field").hidden = false;
        tell(password, refused.detail);
      } else if (refused?.type === "urn:board:reason") tell(reason, refused.detail);
      else if (refused) said.textContent = refused.detail;
      else if (arrived) said.textContent = "The browser didn't allow copying. The value was thrown away; the audit log has the try.";
      else said.textContent = "The board didn't answer. Reload the page and try again.";
    }
    password.value = "";
    button.disabled = false;
  }
}

customElements.define("secret-copy", SecretCopy);

// The wizard counts again as boxes are ticked, by the rules of `clients/views.rs`.

const total = (key, sum) => (document.querySelector(`[data-sum="${key}"]`).textContent = sum);

function countPackage(form) {
  const ticked = [...form.querySelectorAll(".choice:has(:checked) .names li")];
  const names = new Set(ticked.map((item) => item.textContent));
  total("components", names.size);
  form.querySelector("[data-names]").replaceChildren(
    ...[...names].map((name) => Object.assign(document.createElement("li"), { textContent: name })),
  );
}

function countScope(form) {
  const boxes = [...form.querySelectorAll("[data-sums]")];
  const scope = new Set();
  for (let before = -1; before !== scope.size; ) {
    before = scope.size;
    for (const { checked, dataset } of boxes)
      if (checked || dataset.with.split("\n").some((name) => scope.has(name))) scope.add(dataset.name);
  }
  const sums = [0, 0, 0, 0];
  let components = 0;
  for (const { checked, dataset, parentElement: choice } of boxes) {
    const counts = scope.has(dataset.name);
    choice.classList.toggle("along", counts && !checked);
    if (!counts) continue;
    components += 1;
    dataset.sums.split(" ").forEach((number, at) => (sums[at] += Number(number)));
    sums[2] += choice.querySelectorAll("[data-whose=ours]:checked").length;
    sums[3] += choice.querySelectorAll("[data-whose=theirs]:checked").length;
  }
  total("components", components);
  ["you", "agent", "ours", "theirs"].forEach((key, at) => total(key, sums[at]));
}

const counters = { package: countPackage, integrations: countScope };
const recount = (form) => counters[form?.dataset.wizard]?.(form);
document.addEventListener("change", (event) => recount(event.target.form));
// Going back, the browser ticks again what was ticked.
addEventListener("pageshow", () => recount(document.querySelector("[data-wizard]")));
