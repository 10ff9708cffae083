// Send the form of a one-time link as JSON. The token of the link is in the fragment of the address, which browsers do not send.
const form = /** @type {HTMLFormElement} */ (document.querySelector("form.account-form"));
const problem = /** @type {HTMLElement} */ (form.querySelector("[role=alert]"));
const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
const { link = "", done = "" } = form.dataset;
const token = new URLSearchParams(location.hash.slice(1)).get(link);

/** @param {string} text */
function showProblem(text) {
  problem.textContent = text;
  problem.hidden = false;
}

/** @param {Response} response */
async function describe(response) {
  try {
    const { detail, errors = [] } = await response.json();
    return errors.length ? errors.map((/** @type {{detail: string}} */ error) => error.detail).join(" ") : detail;
  } catch {
    return `The service answered with status ${response.status}.`;
  }
}

async function send() {
  problem.hidden = true;
  button.disabled = true;
  try {
    const body = { ...Object.fromEntries(new FormData(form)), ...(token === null ? {} : { [link]: token }) };
    const response = await fetch(form.action, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (!response.ok) {
      showProblem(await describe(response));
      return;
    }
    history.replaceState(null, "", location.pathname); // the token has been used
    const message = document.createElement("p");
    message.className = "hint";
    message.setAttribute("role", "status");
    message.textContent = done;
    form.replaceChildren(message);
  } catch {
    showProblem("The service cannot be reached. Try again in a moment.");
  } finally {
    button.disabled = false;
  }
}

if (link === "token" && token === null) {
  showProblem("This address has no token. Open the whole link that you received.");
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
window.addEventListener("hashchange", () => location.reload()); // another link has been opened on this page
