/** An HTTP proxy on loopback: tunnels by CONNECT and forwards whole URLs. What it was asked for is in `log`. */
import { once } from 'node:events';
import { createServer, request as send } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

export interface Proxied {
  readonly method: string;
  /** `host:port` that was asked for. */
  readonly target: string;
  readonly proxyAuthorization: string | undefined;
  /** Of a request that was forwarded; a tunnel shows nothing of what goes through it. */
  readonly authorization: string | undefined;
}

export interface Proxy {
  readonly host: string;
  readonly log: Proxied[];
}

export async function startProxy(t: Pick<TestContext, 'after'>): Promise<Proxy> {
  const log: Proxied[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/');
    const { 'proxy-authorization': proxyAuthorization, authorization } = request.headers;
    log.push({ method: request.method ?? '', target: url.host, proxyAuthorization, authorization });
    const onward = send(url, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.on('connect', (request, client: Socket, head: Buffer) => {
    const { 'proxy-authorization': proxyAuthorization } = request.headers;
    log.push({ method: 'CONNECT', target: request.url ?? '', proxyAuthorization, authorization: undefined });
    const [host = '', port = ''] = (request.url ?? '').split(':');
    const onward = connect(Number(port), host, () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      onward.write(head);
      client.pipe(onward).pipe(client);
    });
    for (const socket of [client, onward]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => [client, onward].forEach((each) => each.destroy()));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.closeAllConnections();
    server.close();
  });
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, log };
}

/** Sets the variables that name proxies, and none else, until the test is over. */
export function useProxies(t: Pick<TestContext, 'after'>, variables: Readonly<Record<string, string>>): void {
  const names = ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'];
  const before = names.map((name) => [name, process.env[name]] as const);
  for (const name of names) delete process.env[name];
  Object.assign(process.env, variables);
  t.after(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
}
