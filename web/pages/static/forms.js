// Run the actions of forms, show at each field what is wrong with it, and show passwords on request.
import { Refusal } from "./requests.js";

/** Values that a form does not send, because fields are invalid. The keys are the names of the fields, the values sentences. */
export class InvalidFields extends Error {
  /** @param {Record<string, string>} details */
  constructor(details) {
    super(Object.values(details).join(" "));
    this.errors = Object.entries(details).map(([name, detail]) => ({ name, detail }));
  }
}

/** An error whose remedy is on another page, which opens in a new tab, so that what the user has entered is not lost. */
export class ProblemWithLink extends Error {
  /**
   * @param {string} message
   * @param {string} href
   * @param {string} text
   */
  constructor(message, href, text) {
    super(message);
    this.link = document.createElement("a");
    this.link.href = href;
    this.link.target = "_blank";
    this.link.textContent = text;
  }
}

/**
 * Run an action when a form is submitted, and show in the form why it failed.
 * @param {HTMLFormElement} form
 * @param {(values: FormData) => Promise<void>} action
 */
export function onSubmit(form, action) {
  const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    showProblem(form, null);
    clearFields(form);
    button.disabled = true;
    let problem = null;
    try {
      await action(new FormData(form));
    } catch (error) {
      problem = error;
    }
    button.disabled = false;
    if (problem) showFormProblem(form, problem);
  });
}

/**
 * Show an error in the part of an element that is for errors. Null hides this part.
 * @param {Element} parent
 * @param {unknown} error
 */
export function showProblem(parent, error) {
  const problem = /** @type {HTMLElement} */ (parent.querySelector("[role=alert]"));
  problem.replaceChildren(...(error === null ? [] : [error instanceof Error ? error.message : String(error)]));
  if (error instanceof ProblemWithLink) problem.append(" ", error.link);
  problem.hidden = error === null;
}

/**
 * Show each error at its field, and focus the first of these fields. Errors without a field are shown in the form.
 * @param {HTMLFormElement} form
 * @param {unknown} error
 */
function showFormProblem(form, error) {
  const errors = error instanceof Refusal || error instanceof InvalidFields ? error.errors : [];
  const others = [];
  for (const { name, detail } of errors) {
    const field = findField(form, name);
    if (field) showAtField(field, name, detail);
    else others.push(detail);
  }
  if (others.length || !errors.length) showProblem(form, others.length ? others.join(" ") : error);
  const first = form.querySelector("[aria-invalid=true], fieldset[aria-describedby]");
  /** @type {HTMLElement | null} */ (first?.tagName === "FIELDSET" ? first.querySelector("input") : first)?.focus();
}

/**
 * Return the field with a name, or the group of the fields with this name; null if there is none that the user can see.
 * @param {HTMLFormElement} form
 * @param {string} name
 * @returns {HTMLElement | null}
 */
function findField(form, name) {
  const field = /** @type {HTMLElement | null} */ (form.querySelector(`[name="${CSS.escape(name)}"]:not([hidden])`));
  return field?.closest("fieldset") ?? field;
}

/**
 * @param {HTMLElement} field
 * @param {string} name
 * @param {string} detail
 */
function showAtField(field, name, detail) {
  const id = `${name}-problem`;
  const shown = document.getElementById(id);
  if (shown) {
    shown.append(` ${detail}`); // another error of the same field
    return;
  }
  const problem = document.createElement("p");
  problem.id = id;
  problem.className = "wrong field-problem";
  problem.textContent = detail;
  (field.closest("label") ?? field).after(problem);
  if (field.tagName !== "FIELDSET") field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${id} ${field.getAttribute("aria-describedby") ?? ""}`.trim());
}

/** @param {HTMLFormElement} form */
function clearFields(form) {
  for (const problem of form.querySelectorAll(".field-problem")) {
    for (const field of form.querySelectorAll(`[aria-describedby~="${CSS.escape(problem.id)}"]`)) {
      field.removeAttribute("aria-invalid");
      const others = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id !== problem.id).join(" ");
      if (others) field.setAttribute("aria-describedby", others);
      else field.removeAttribute("aria-describedby");
    }
    problem.remove();
  }
}

// "Show password" shows the new password of its form, until the form is reset.
for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("[data-show-password]"))) {
  const password = /** @type {HTMLInputElement} */ (box.form?.querySelector("[autocomplete=new-password]"));
  box.addEventListener("change", () => { password.type = box.checked ? "text" : "password"; });
  box.form?.addEventListener("reset", () => { password.type = "password"; });
}
