// Reload the page whenever the batch has moved on, until it is finished.
const { batch, shown } = document.currentScript.dataset;
async function watch() {
  for (;;) {
    try {
      const answer = await fetch(`/image_batches/${batch}?wait=3`);
      if (answer.ok) {
        const { counts, finished_at } = await answer.json();
        if (finished_at || Object.values(counts).join() !== shown) {
          location.reload();
          return;
        }
      } else if (answer.status === 404) {
        location.reload(); // deleted: the page says so
        return;
      }
    } catch {
      // The service is being restarted: ask again, as after a 5xx.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
watch();
