// Reload the page whenever the batch has moved on, until it is finished.
const batch = document.currentScript.dataset.batch;
let seen = "";
async function watch() {
  for (;;) {
    try {
      const answer = await fetch(`/image_batches/${batch}?wait=3`);
      if (!answer.ok) return;
      const { counts, finished_at } = await answer.json();
      const now = JSON.stringify(counts) + finished_at;
      if (seen && seen !== now) {
        location.reload();
        return;
      }
      seen = now;
    } catch {
      // The service is being restarted: ask again.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
watch();
