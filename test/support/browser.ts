/**
 * A real Chromium without a screen, as set-up unpacked it, spoken to over its DevTools pipe (descriptors 3 and 4, texts of
 * JSON with a zero byte after each). It runs as root in a test and visits our own pages only, so it has no sandbox.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Closable } from '../../src/lib/scope.js';
import { root } from './tools.js';

const place = join(root, '.cache/browser/usr');
const program = join(place, 'lib/chromium/chromium-headless-shell');

/** Why there is no browser; undefined where there is one. */
export const noBrowser = existsSync(program) ? undefined : `${program} is missing: run test/support/setup.sh`;

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

export class Browser implements Closable {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #input: Writable;
  #lastId = 0;
  #session: string | undefined;
  /** What the page complained of: exceptions, refusals by its policy, errors on the console. */
  readonly complaints: string[] = [];

  private constructor() {
    this.#profile = mkdtempSync(join(tmpdir(), `tartan-browser-${process.pid}-`));
    const libraries = join(
      place,
      'lib',
      readdirSync(join(place, 'lib')).find(name => name.endsWith('-linux-gnu')) ?? '',
    );
    const words = [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--remote-debugging-pipe',
      '--no-first-run',
    ];
    const quiet = ['--disable-background-networking', '--disable-component-update', '--hide-scrollbars'];
    this.#child = spawn(program, [...words, ...quiet, `--user-data-dir=${this.#profile}`, 'about:blank'], {
      env: { ...process.env, LD_LIBRARY_PATH: [libraries, join(libraries, 'pulseaudio')].join(':') },
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    const [, , , input, output] = this.#child.stdio;
    this.#input = input as Writable;
    this.#input.on('error', () => {});
    this.#read(output as Readable);
  }

  static async open(): Promise<Browser> {
    const browser = new Browser();
    const { targetInfos } = await browser.send('Target.getTargets');
    const page = (targetInfos as { type: string; targetId: string }[]).find(({ type }) => type === 'page');
    const attached = await browser.send('Target.attachToTarget', { targetId: page?.targetId, flatten: true });
    browser.#session = String(attached['sessionId']);
    for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'Security']) await browser.send(`${domain}.enable`);
    return browser;
  }

  send(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const id = ++this.#lastId;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) =>
        error ? reject(new Error(`${method}: ${error.message}`)) : resolve(result ?? {}),
      );
      this.#input.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }

  /** Waits until the expression is true in the page. */
  async until(expression: string, limitMs = 10_000): Promise<void> {
    for (const endMs = performance.now() + limitMs; ;) {
      const value = await this.evaluate(expression).catch(() => false);
      if (value === true) return;
      if (performance.now() > endMs) {
        const text = await this.evaluate('document.body.innerText').catch(String);
        throw new Error(`the page never came to ${expression}: ${String(text).slice(0, 2000)}`);
      }
      await new Promise(resolve => void setTimeout(resolve, 20));
    }
  }

  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value?: unknown }).value;
  }

  async visit(url: string): Promise<void> {
    await this.send('Page.navigate', { url });
  }

  async size(width: number, height: number, scheme: 'light' | 'dark' = 'light'): Promise<void> {
    const screen = { width, height, deviceScaleFactor: 1, mobile: width < 500 };
    await this.send('Emulation.setDeviceMetricsOverride', screen);
    await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  }

  /** @returns a PNG */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(String(data), 'base64');
  }

  async close(): Promise<void> {
    const ended = new Promise(resolve => void this.#child.once('exit', resolve));
    if (this.#child.exitCode === null && this.#child.kill('SIGKILL')) await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  }

  #read(output: Readable): void {
    let rest = Buffer.alloc(0);
    output.on('data', (part: Buffer) => {
      rest = Buffer.concat([rest, part]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.#hear(JSON.parse(rest.toString('utf8', 0, end)) as Message);
        rest = rest.subarray(end + 1);
      }
    });
    output.on('error', () => {});
  }

  #hear(message: Message): void {
    const { id, method = '', params = {} } = message;
    if (id !== undefined) this.#waiting.get(id)?.(message);
    this.#waiting.delete(id ?? 0);
    if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params['exceptionDetails']));
    if (method === 'Log.entryAdded') this.complaints.push(JSON.stringify(params['entry']));
  }
}
