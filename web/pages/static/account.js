// The account page: create and delete API keys, change the password, and sign out.
import { InvalidFields, onSubmit, ProblemWithLink, showProblem } from "./forms.js";
import { Refusal, send } from "./requests.js";

const main = /** @type {HTMLElement} */ (document.querySelector("main"));

/**
 * @template {HTMLElement} T
 * @param {string} selector
 * @returns {T}
 */
function find(selector) {
  return /** @type {T} */ (main.querySelector(selector));
}

/**
 * Send a request of this page. If the same person has signed in again, the page gets the CSRF token of the new session first.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
async function sendHere(method, path, body) {
  try {
    return await send(method, path, body).catch(async (error) => {
      if (!(error instanceof Refusal && error.code === "bad_csrf_token")) throw error;
      await refresh();
      return send(method, path, body);
    });
  } catch (error) {
    if (!(error instanceof Refusal && error.code === "unauthorized")) throw error;
    throw new ProblemWithLink("Your session has ended, so nothing was changed. Sign in again, then repeat this.", "/login?next=/account", "Sign in in a new tab");
  }
}

/** Load this page again, and take its list of keys and its CSRF token, but keep everything else, such as a new key. */
async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  const loaded = new DOMParser().parseFromString(await response.text(), "text/html");
  const user = /** @type {HTMLElement | null} */ (loaded.querySelector("[data-user]"))?.dataset.user;
  if (user !== undefined && user !== find("[data-user]").dataset.user) {
    location.reload(); // this page must not act for another person
    throw new Error("Somebody else has signed in with this browser.");
  }
  for (const selector of ["#keys", "meta[name=csrf-token]"]) {
    const part = loaded.querySelector(selector);
    if (part) document.querySelector(selector)?.replaceWith(document.adoptNode(part));
  }
}

/** @param {string} key */
function showKey(key) {
  const box = find("#new-key");
  const button = /** @type {HTMLButtonElement} */ (box.querySelector("button"));
  /** @type {HTMLElement} */ (box.querySelector("code")).textContent = key;
  button.textContent = "Copy";
  button.onclick = async () => {
    const isCopied = await navigator.clipboard.writeText(key).then(() => true, () => false); // the browser can refuse
    button.textContent = isCopied ? "Copied" : "Select the key to copy it";
  };
  button.hidden = !navigator.clipboard; // browsers offer it to pages over https alone
  box.hidden = false;
}

/** @type {HTMLFormElement} */
const keyForm = find("#key-form");
onSubmit(keyForm, async (values) => {
  const name = String(values.get("name")).trim();
  const stores = String(values.get("stores")).split("\n").map((line) => line.trim()).filter(Boolean);
  const expires = String(values.get("expires_at"));
  const scopes = values.getAll("scopes");
  if (!name || !scopes.length || !stores.length) {
    throw new InvalidFields({
      ...(name ? {} : { name: "Enter a name for the key." }),
      ...(scopes.length ? {} : { scopes: "Choose what the key may do." }),
      ...(stores.length ? {} : { stores: "Name at least one store." }),
    });
  }
  const created = await sendHere("POST", "/api_keys", { name, scopes, stores, ...(expires && { expires_at: `${expires}T23:59:59Z` }) });
  showKey(created.key);
  keyForm.reset();
  /** @type {HTMLDetailsElement} */ (keyForm.closest("details")).open = false;
  await refresh();
  find("#new-key").focus();
});

// A key is deleted by two clicks: the first one changes the text of its button. The second click of a double click does not count.
main.addEventListener("click", async (event) => {
  const button = event.target instanceof HTMLButtonElement ? event.target : null;
  const id = button?.dataset.delete;
  if (!button || !id || event.detail > 1) return;
  if (!button.classList.contains("sure")) {
    button.classList.add("sure");
    button.textContent = "Really delete?";
    button.setAttribute("aria-label", `Really delete the key ${button.dataset.name}?`);
    return;
  }
  await run(async () => {
    await sendHere("DELETE", `/api_keys/${id}`);
    find("#new-key").hidden = true;
    await refresh();
    find("#keys").focus(); // the focused button has gone
  });
});
main.addEventListener("keydown", (event) => {
  if (event.repeat && event.target instanceof HTMLButtonElement && event.target.dataset.delete) event.preventDefault(); // a key that is held down
});
main.addEventListener("focusout", (event) => {
  const button = event.target instanceof HTMLButtonElement ? event.target : null;
  if (!button?.classList.contains("sure")) return;
  button.classList.remove("sure");
  button.textContent = "Delete";
  button.removeAttribute("aria-label");
});

/** @type {HTMLFormElement} */
const passwordForm = find("#password-form");
onSubmit(passwordForm, async (values) => {
  const done = /** @type {HTMLElement} */ (passwordForm.querySelector("[role=status]"));
  done.hidden = true;
  if (!values.get("current_password")) throw new InvalidFields({ current_password: "Enter your present password." });
  await sendHere("POST", passwordForm.action, { current_password: values.get("current_password"), new_password: values.get("new_password") }).catch((error) => {
    throw error instanceof Refusal && error.code === "wrong_password" ? new InvalidFields({ current_password: error.message }) : error;
  });
  passwordForm.reset();
  done.textContent = "Your password has been changed.";
  done.hidden = false;
  await refresh(); // a new session has begun, with another CSRF token
});

/**
 * Run an action, and show at the top of the page why it failed.
 * @param {() => Promise<void>} action
 */
async function run(action) {
  showProblem(main, null);
  try {
    await action();
  } catch (error) {
    showProblem(main, error);
    find("#problem").scrollIntoView({ block: "nearest" });
  }
}

/** @param {boolean} everywhere */
function signOut(everywhere) {
  return run(async () => {
    await sendHere("POST", "/logout", { everywhere });
    location.assign("/login");
  });
}
find("#sign-out").addEventListener("click", () => signOut(false));
find("#sign-out-everywhere").addEventListener("click", () => signOut(true));
