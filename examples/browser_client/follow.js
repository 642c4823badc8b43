// Follow topics of pgchannels across restarts of the server: no message is missed, none comes twice.
//
// Both functions take the URL of an endpoint that accepts `?since=`, and an object of callbacks, all optional:
//     onMessage({topic, position, payload})
//     onGap({reason, count})     messages are lost for good: load the page's state again
//     onState("connected" | "connecting" | "refused")
// and return a function that ends it.

const FIRST_PAUSE = 500, LONGEST_PAUSE = 15_000;  // milliseconds

/** By Server-Sent Events: the endpoint returns `event_source(request, subscription)`. */
export function followEvents(url, { onMessage, onGap, onState } = {}) {
  const pauses = new Pauses();
  let source, timer, since = null;

  function open() {
    onState?.("connecting");
    source = new EventSource(withSince(url, since));
    const take = event => { since = event.lastEventId; };
    source.addEventListener("since", event => { take(event); pauses.reset(); onState?.("connected"); });
    source.addEventListener("gap", event => { take(event); onGap?.(JSON.parse(event.data)); });
    source.onmessage = event => { take(event); onMessage?.(JSON.parse(event.data)); };
    source.onerror = () => {
      onState?.("connecting");
      // A lost connection is the browser's own affair. It gives up after a status such as 503: then it is ours.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, pauses.next());
    };
  }

  open();
  return () => { clearTimeout(timer); source.close(); };
}

/** By a websocket: the endpoint awaits `websocket_messages(websocket, subscription, resumable=True)`. */
export function followWebSocket(url, { onMessage, onGap, onState } = {}) {
  const pauses = new Pauses();
  let socket, timer, since = null, ahead = new Map(), isEnded = false;

  function open() {
    onState?.("connecting");
    socket = new WebSocket(withSince(url, since && [since, ...Array.from(ahead, pair => pair.join("="))].join(",")));
    socket.onmessage = event => {
      const content = JSON.parse(event.data);
      if ("since" in content) {  // where the whole subscription stands
        since = content.since;
        ahead.clear();
        pauses.reset();
        onState?.("connected");
      } else if ("gap" in content) {
        onGap?.(content.gap);
      } else {
        ahead.set(content.topic, content.position);
        onMessage?.(content);
      }
    };
    socket.onclose = event => {
      if (isEnded) return;
      if (event.code === 1008) onState?.("refused");  // the next attempt would end as well
      else timer = setTimeout(open, pauses.next());
    };
  }

  open();
  return () => { isEnded = true; clearTimeout(timer); socket.close(); };
}

function withSince(url, since) {
  const full = new URL(url, location.href);
  if (since) full.searchParams.set("since", since);
  return full;
}

/** Growing pauses, each at random: after a restart, not all pages come back in the same moment. */
class Pauses {
  #next = FIRST_PAUSE;
  reset() { this.#next = FIRST_PAUSE; }
  next() {
    const pause = this.#next * (0.5 + Math.random() / 2);
    this.#next = Math.min(this.#next * 2, LONGEST_PAUSE);
    return pause;
  }
}
