// Passkeys: the board's question goes to the authenticator, its answer into the form, and the form is posted like any other.

const ask = async (button, mediation, signal) => {
  const { form, dataset, nextElementSibling: field } = button;
  const said = field.nextElementSibling;
  said.textContent = "";
  try {
    const asked = await fetch(`/passkeys/${dataset.passkey}?at=${encodeURIComponent(new URL(form.action).pathname)}`);
    const { id, options, detail } = await asked.json();
    if (!asked.ok) return (said.textContent = detail);
    const { credentials } = navigator;
    const api = window.PublicKeyCredential;
    const credential = await (options.rp
      ? credentials.create({ publicKey: api.parseCreationOptionsFromJSON(options) })
      : credentials.get({ publicKey: api.parseRequestOptionsFromJSON(options), mediation, signal }));
    field.value = JSON.stringify({ id, credential });
    form.requestSubmit();
    field.value = "";
  } catch (error) {
    if (error.name !== "AbortError") said.textContent = "No passkey was used. Try again, or use the password.";
  }
};

// One question at a time: a click ends the one that waits in the list of the email field.
const waiting = new AbortController();

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-passkey]");
  const password = button?.form.elements.step_up_password;
  if (!button) return;
  if (password) password.required = false;
  if (!button.form.reportValidity()) return;
  waiting.abort();
  ask(button);
});

const first = document.querySelector("[data-passkey=sign-in]");
if (first && (await window.PublicKeyCredential?.isConditionalMediationAvailable?.())) ask(first, "conditional", waiting.signal);
