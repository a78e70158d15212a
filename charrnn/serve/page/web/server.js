// Asking the server: JSON, and completions as streams.

// What the server refuses, in its words.
export class Refused extends Error {}

async function asked(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("unreachable");
  }
  if (answer.ok) return answer;
  let message = `${answer.status}`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // The answer was none of the server's own: its status has to do.
  }
  throw new Refused(message);
}

export async function get(path) {
  return (await asked(path, {})).json();
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return (await asked(path, { method: "POST", headers, body: JSON.stringify(body), signal })).json();
}

// Yield the pieces of a completion as they are drawn.
export async function* stream(body, signal) {
  const headers = { "Content-Type": "application/json" };
  const options = { method: "POST", headers, body: JSON.stringify({ ...body, stream: true }), signal };
  const reader = (await asked("/v1/completions", options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (waiting + value).split("\n\n");
    waiting = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: {")) continue;
      const piece = JSON.parse(event.slice(6));
      if (piece.error) throw new Refused(piece.error.message);
      for (const each of piece.choices) if (each.text) yield each.text;
    }
  }
}
