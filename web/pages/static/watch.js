// Reload the page whenever the counts of the batch change, until the batch is finished.
const { batch, shown } = document.currentScript.dataset;
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
      }
    } catch {
      // The service may be restarting. Retry, as after a response with a 5xx status.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
watch();
