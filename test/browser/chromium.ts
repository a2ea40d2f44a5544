/**
 * A headless Chromium for tests, driven by the DevTools protocol over a pipe: two descriptors that carry JSON messages, each
 * ended by a NUL. No port is opened and no driver package is needed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

type Message = Record<string, unknown>;
interface Waiting {
  resolve: (result: Message) => void;
  reject: (error: Error) => void;
}

const PROGRAMS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export class Chromium {
  readonly #process: ChildProcess;
  readonly #profile: string;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(message: Message) => void>();
  #last = 0;

  private constructor(process: ChildProcess, profile: string) {
    this.#process = process;
    this.#profile = profile;
    let rest = Buffer.alloc(0);
    (process.stdio[4] as Readable).on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.#receive(JSON.parse(rest.toString('utf8', 0, end)) as Message);
        rest = rest.subarray(end + 1);
      }
    });
    process.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('Chromium ended'));
      this.#waiting.clear();
    });
  }

  static async start(): Promise<Chromium> {
    const program = PROGRAMS.find((path) => existsSync(path));
    if (program === undefined) throw new Error('there is no Chromium: install the Debian package "chromium"');
    const profile = await mkdtemp(join(tmpdir(), 'layerstore-chromium-'));
    const words = [
      ...['--headless=new', '--remote-debugging-pipe', `--user-data-dir=${profile}`, '--no-first-run'],
      // The tests run as root, in containers too; the pages are our own.
      ...['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--disable-extensions'],
      ...['--disable-background-networking', '--disable-component-update', '--hide-scrollbars', '--lang=en-US'],
    ];
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    return new Chromium(child, profile);
  }

  async page(): Promise<Page> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId as string);
    await page.prepare();
    return page;
  }

  send(method: string, params: Message = {}, sessionId?: string): Promise<Message> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      const message = { id, method, params, ...(sessionId === undefined ? {} : { sessionId }) };
      (this.#process.stdio[3] as Writable).write(`${JSON.stringify(message)}\0`);
    });
  }

  listen(listener: (message: Message) => void): void {
    this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    const ended = once(this.#process, 'exit');
    await this.send('Browser.close').catch(() => undefined);
    await ended;
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  #receive(message: Message): void {
    const waiting = this.#waiting.get(message['id'] as number);
    if (waiting === undefined) {
      for (const listener of this.#listeners) listener(message);
      return;
    }
    this.#waiting.delete(message['id'] as number);
    const error = message['error'] as { message: string } | undefined;
    if (error === undefined) waiting.resolve((message['result'] ?? {}) as Message);
    else waiting.reject(new Error(error.message));
  }
}

/** One tab. `problems` is everything that the console, the page's policy or an exception said, and every request out. */
export class Page {
  readonly #browser: Chromium;
  readonly #session: string;
  readonly problems: string[] = [];
  #loaded: () => void = () => undefined;

  constructor(browser: Chromium, session: string) {
    this.#browser = browser;
    this.#session = session;
  }

  async prepare(): Promise<void> {
    this.#browser.listen((message) => {
      if (message['sessionId'] !== this.#session) return;
      const params = message['params'] as Message;
      switch (message['method']) {
        case 'Runtime.exceptionThrown':
        case 'Runtime.consoleAPICalled':
        case 'Log.entryAdded':
          this.problems.push(JSON.stringify(params));
          break;
        case 'Network.requestWillBeSent': {
          const { url } = params['request'] as { url: string };
          if (!url.startsWith('file:')) this.problems.push(`the page asked for ${url}`);
          break;
        }
        case 'Page.loadEventFired':
          this.#loaded();
          break;
        default:
      }
    });
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await this.#send(`${domain}.enable`);
  }

  async open(path: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => (this.#loaded = resolve));
    await this.#send('Page.navigate', { url: `file://${path}` });
    await loaded;
  }

  async resize(width: number, height: number, scheme: 'light' | 'dark'): Promise<void> {
    await this.#send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
    await this.#send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
    // Two frames: the observers of sizes have drawn by then.
    await this.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
  }

  /** The value of an expression in the page; of a promise what it resolves to. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** A key as a keyboard sends it. */
  async press(key: string): Promise<void> {
    const codes: Record<string, number> = {
      Enter: 13,
      End: 35,
      Home: 36,
      ArrowLeft: 37,
      ArrowUp: 38,
      ArrowRight: 39,
      ArrowDown: 40,
      Tab: 9,
    };
    const code = { key, code: key, windowsVirtualKeyCode: codes[key] ?? 0, ...(key === 'Enter' ? { text: '\r' } : {}) };
    await this.#send('Input.dispatchKeyEvent', { type: 'keyDown', ...code });
    await this.#send('Input.dispatchKeyEvent', { type: 'keyUp', ...code });
  }

  async type(text: string): Promise<void> {
    await this.#send('Input.insertText', { text });
  }

  async screenshot(): Promise<Buffer> {
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
    return Buffer.from(data as string, 'base64');
  }

  #send(method: string, params: Message = {}): Promise<Message> {
    return this.#browser.send(method, params, this.#session);
  }
}
