// What is so now, as it changes: by Server-Sent Events; where they do not come, by asking.

const POLL_MS = 2000;
const AGAIN_MS = 30000;
const STALE_MS = 6000;

export function watch(onSnapshot, onState) {
  let source = null;
  let timer = 0;
  let retry = 0;
  let heard = performance.now();

  function heardOf(snapshot, state) {
    heard = performance.now();
    onState(state);
    onSnapshot(snapshot);
  }

  async function poll() {
    try {
      const answer = await fetch("dashboard/snapshot");
      if (answer.ok) heardOf(await answer.json(), "polling");
    } catch { /* told by its age */ }
    if (timer) timer = setTimeout(poll, POLL_MS);
  }

  function stop() {
    source?.close();
    source = null;
    clearTimeout(timer);
    clearTimeout(retry);
    timer = retry = 0;
  }

  function listen() {
    stop();
    source = new EventSource("dashboard/events");
    source.onmessage = (event) => {
      clearTimeout(timer);
      timer = 0;
      heardOf(JSON.parse(event.data), "live");
    };
    source.onerror = () => {
      if (!timer) {
        timer = -1;
        poll();
      }
      // Refused, not interrupted: the browser does not come back by itself.
      if (source?.readyState === EventSource.CLOSED && !retry) retry = setTimeout(listen, AGAIN_MS);
    };
  }

  setInterval(() => {
    if (!document.hidden && performance.now() - heard > STALE_MS) onState("stale");
  }, 1000);
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
  listen();
}
