// What the pages gain with JavaScript: liveness, times that stay right, four boxes that take one paste, and copying. Every
// page is complete without it. Nothing here makes HTML from data: the server sends whole fragments and they are patched in.

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
// the first one after every connect, so a gap heals itself); `title`, `favicon` ("needs" or "calm") and `pending` (a
// number) go to the document.

const FIELDS = "input:not([type=hidden]), textarea, select";

class LiveRegion extends HTMLElement {
  #source = null;
  #lostAt = null;
  #tries = 0;
  #timer = 0;
  #held = null;

  connectedCallback() {
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
    source.addEventListener("pending", (event) => {
      const count = document.getElementById("pending");
      if (!count) return;
      count.querySelector("b").textContent = event.data;
      count.hidden = event.data.trim() === "0";
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
    const focused = this.contains(document.activeElement);
    patch(this, template.content);
    if (focused && document.activeElement === document.body) {
      this.tabIndex = -1;
      this.focus({ preventScroll: true });
    }
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

const dirty = (form) =>
  [...form.querySelectorAll(FIELDS)].some((field) =>
    field.matches("[type=checkbox], [type=radio]") ? field.checked !== field.defaultChecked : field.value !== (field.defaultValue ?? field.value));

// Makes `old`'s children like `fresh`'s and keeps every element that is still there: so focus, selection, scroll positions
// and opened details stay. Elements with an id are the same if the id is.
function patch(old, fresh) {
  const ids = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    while (next?.id && !ids.has(next.id)) next = drop(next);
    const same = child.id ? [...old.children].find((other) => other.id === child.id) : alike(next, child) ? next : null;
    if (!same || same.nodeName !== child.nodeName) {
      same?.remove();
      old.insertBefore(child, next?.parentNode === old ? next : null);
    } else {
      if (same === next) next = next.nextSibling;
      else (old.moveBefore ?? old.insertBefore).call(old, same, next);
      renew(same, child);
    }
  }
  while (next) next = drop(next);
}

const alike = (a, b) => a && a.nodeType === b.nodeType && a.nodeName === b.nodeName && !a.id && !b.id;

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function renew(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  // What a person typed, or was told about it, isn't taken away.
  if (old.nodeName === "FORM" && (dirty(old) || old.querySelector("[aria-invalid=true]"))) return;
  const kept = old.nodeName === "DETAILS" ? "open" : "";
  for (const { name } of [...old.attributes]) if (name !== kept && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== kept && old.getAttribute(name) !== value) old.setAttribute(name, value);
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
    label.textContent = "Copy";
    spoken.textContent = "";
  }, 3000);
});

// A new client: the running sum, and where the secrets of theirs will live.

document.addEventListener("change", (event) => {
  if (event.target.name !== "component") return;
  const sums = { components: 0, agent: 0, you: 0, ours: 0, theirs: 0 };
  for (const { dataset } of event.target.form.querySelectorAll("input[name=component]:checked")) {
    sums.components += 1;
    for (const key of ["agent", "you", "ours", "theirs"]) sums[key] += Number(dataset[key]);
  }
  for (const [key, sum] of Object.entries(sums)) document.querySelector(`[data-sum="${key}"]`).textContent = sum;
});

document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.matches(".wizard") || !["name", "vault_name"].includes(event.target.name)) return;
  const vault = form.elements.vault_name.value.trim() || form.elements.name.value.trim() || "…";
  for (const code of form.querySelectorAll("[data-hint]")) code.textContent = code.dataset.hint.replaceAll("{vault}", vault);
});
