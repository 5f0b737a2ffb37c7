// A web socket as a queue of messages.

export async function connect(url) {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const waiting = [];
  let wake = null;
  socket.onmessage = (event) => {
    waiting.push(event.data);
    wake?.();
  };
  socket.onclose = () => {
    waiting.push(null);
    wake?.();
  };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error(`cannot connect to ${url}`));
  });
  return {
    send: (bytes) => socket.send(bytes),
    // Returns null once the other end is gone.
    receive: async () => {
      while (!waiting.length) await new Promise((resolve) => (wake = resolve));
      return waiting.shift();
    },
  };
}
