// Questions to the server. Of one kind only the newest is waited for; those that it overtakes are never sent.

export async function ask(name, wish) {
  const sent = wish === undefined
    ? await fetch(`/api/${name}`)
    : await fetch(`/api/${name}`, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(wish)});
  if (sent.status === 403) throw new Error('The server was started anew: open the address that it printed.');
  const answer = await sent.json();
  if (!sent.ok) throw new Error(answer.error);
  return answer;
}

export function newest(name, take, fail) {
  let waiting = null;
  let busy = false;
  async function run() {
    busy = true;
    while (waiting) {
      const wish = waiting;
      waiting = null;
      try {
        const answer = await ask(name, wish);
        if (!waiting) take(answer, wish);
      } catch (error) {
        if (!waiting) fail(error instanceof TypeError ? new Error('The server does not answer; is it stopped?') : error);
      }
    }
    busy = false;
  }
  return wish => {
    waiting = wish;
    if (!busy) run();
  };
}
