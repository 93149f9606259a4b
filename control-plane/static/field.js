// What is wrong with a field, said beside it; no text takes it back.
export function tell(field, text) {
  const problem = document.getElementById(`${field.id}-problem`);
  problem.hidden = !text;
  problem.textContent = text;
  if (!text) return field.removeAttribute("aria-invalid");
  field.setAttribute("aria-invalid", "true");
  field.focus();
}
