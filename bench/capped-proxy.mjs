// Passes connections on to a port of this machine and gives each at most 20 MB a second of what comes back, as a registry far
// away does: `node capped-proxy.mjs PORT TARGET`. A process of its own, so that its work is nobody's CPU.
import { connect, createServer } from 'node:net';

const [port, target] = process.argv.slice(2).map(Number);
const BYTES_A_MS = 20_000;

createServer((client) => {
  const server = connect(target, '127.0.0.1');
  client.pipe(server);
  let free = performance.now();
  server.on('data', (chunk) => {
    client.write(chunk);
    free = Math.max(free, performance.now() - 5) + chunk.length / BYTES_A_MS;
    const wait = free - performance.now();
    if (wait < 1) return;
    server.pause();
    setTimeout(() => server.resume(), wait);
  });
  server.on('end', () => client.end());
  for (const socket of [client, server]) {
    socket.on('error', () => undefined);
    socket.on('close', () => [client, server].forEach((each) => each.destroy()));
  }
}).listen(port, '127.0.0.1');
