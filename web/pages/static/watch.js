// Reload the page whenever the counts of the batch change, until the batch is finished.
const progress = /** @type {HTMLProgressElement} */ (document.querySelector("progress[data-batch]"));
const { batch, shown } = progress.dataset;

/** Say that the page no longer follows the batch. The link loads the page again, which then is the form to sign in. */
function showEnd() {
  const message = document.createElement("p");
  message.className = "hint";
  message.setAttribute("role", "alert");
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Sign in";
  message.append("Your session has ended, so this page does not change any more. ", link);
  progress.after(message);
}

async function watch() {
  for (;;) {
    try {
      const response = await fetch(`/image_batches/${batch}?wait=3&images_per_batch=0`);
      if (response.ok) {
        const { counts, finished_at } = await response.json();
        if (finished_at || Object.values(counts).join() !== shown) {
          location.reload();
          return;
        }
      } else if (response.status === 404) {
        location.reload(); // the batch has been deleted; the reloaded page shows this
        return;
      } else if (response.status === 401) {
        showEnd();
        return;
      }
    } catch {
      // The service may be restarting. Retry, as after a response with a 5xx status.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
void watch();
