// Reload the page whenever the counts of the batch change, until it is finished.
const { batch, shown } = document.currentScript.dataset;
async function watch() {
  for (;;) {
    try {
      const response = await fetch(`/image_batches/${batch}?wait=3`);
      if (response.ok) {
        const { counts, finished_at } = await response.json();
        if (finished_at || Object.values(counts).join() !== shown) {
          location.reload();
          return;
        }
      } else if (response.status === 404) {
        location.reload(); // the batch is deleted; the reloaded page says so
        return;
      }
    } catch {
      // The service restarts: try again, as after a 5xx response.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
watch();
