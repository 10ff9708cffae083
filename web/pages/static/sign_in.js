// Start a session, then open the page that the user wanted to see.
import { InvalidFields, onSubmit } from "./forms.js";
import { send } from "./requests.js";

const form = /** @type {HTMLFormElement} */ (document.querySelector("form.account-form"));

onSubmit(form, async (values) => {
  const name = String(values.get("name")).trim();
  const password = String(values.get("password"));
  if (!name || !password) {
    throw new InvalidFields({ ...(name ? {} : { name: "Enter your user name or your email address." }), ...(password ? {} : { password: "Enter your password." }) });
  }
  await send("POST", "/sessions", { [name.includes("@") ? "email" : "username"]: name, password });
  const { next } = form.dataset;
  if (next === undefined) location.reload(); // the form was shown in the place of a page
  else if (new URL(next, location.origin).origin === location.origin) location.assign(next);
});
