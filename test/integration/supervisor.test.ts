/** The supervisor with a child that is not the data process: a program of the test's, as another user, in a scope. */
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { spawnDetached, Supervisor, type Child, type ChildKind } from '../../src/lib/supervisor.js';

const program = fileURLToPath(new URL('../support/supervised-child.mjs', import.meta.url));
const nobody = 65_534;

class TestChild implements Child {
  readonly pid: number;
  readonly ended: Promise<void>;
  readonly words: string[] = [];
  /** When it was asked what it has not answered. */
  askedMs: number | undefined;
  readonly #process: ChildProcess;

  constructor(process: ChildProcess) {
    this.#process = process;
    this.pid = process.pid ?? 0;
    this.ended = new Promise(resolve => void process.once('exit', () => resolve()));
    if (process.stdout)
      createInterface({ input: process.stdout }).on('line', line => {
        this.words.push(line);
        if (line === 'yes') this.askedMs = undefined;
      });
  }

  tell(word: string): void {
    this.#process.stdin?.write(`${word}\n`);
  }

  async stop(): Promise<void> {
    this.tell('stop');
    await this.ended;
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }

  release(): void {}
}

let directory: string;
let now = 0;
let wanted = true;
const events: string[] = [];
const children: TestChild[] = [];
const scoped: number[] = [];
let supervisor: Supervisor<TestChild>;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-supervisor-'));
  chmodSync(directory, 0o777);
  for (const list of [events, children, scoped]) list.length = 0;
  [now, wanted] = [1_000_000, true];
  supervisor = open();
  await supervisor.change(() => supervisor.launch());
});
afterEach(async () => {
  wanted = false;
  await supervisor.stop('the test is over');
  await supervisor.close();
  rmSync(directory, { recursive: true });
});

function open(): Supervisor<TestChild> {
  const note = (event: string): void => void events.push(event);
  const log = { debug: note, info: note, warn: note, error: note };
  const sleep = async (ms: number): Promise<void> => void (now += ms);
  const lock = join(directory, 'works');
  const kind: ChildKind<TestChild> = {
    name: 'test child',
    event: 'child',
    isWanted: () => wanted,
    async spawn() {
      const child = new TestChild(
        spawnDetached({
          executable: process.execPath,
          args: [program, lock],
          stdio: ['pipe', 'pipe', 'inherit'],
          user: nobody,
          group: nobody,
        }),
      );
      children.push(child);
      await vi.waitFor(() => expect(child.words).toEqual(['paused']), 5_000);
      return child;
    },
    enterScope: ({ pid }) => void scoped.push(pid),
    commit: child => child.tell('work'),
    discard: () => {},
    // The lock of one that was killed.
    onEnded: () => rmSync(lock, { recursive: true, force: true }),
    silentSinceMs: child => child.askedMs,
  };
  return new Supervisor(kind, { clock: { now: () => now, sleep }, log });
}

/** So many seconds, in each of which the owner looks after the child. */
function pass(seconds: number): void {
  for (; seconds > 0; seconds--) {
    now += 1_000;
    supervisor.check();
  }
}

const works = (child: TestChild | undefined): Promise<void> =>
  vi.waitFor(() => expect(child?.words).toContain('works'), 5_000);

test('the first child: another user, in the scope of the caller, working', async () => {
  const [child] = children;
  await works(child);
  expect(readFileSync(`/proc/${child?.pid}/status`, 'utf8')).toMatch(/^Uid:\t65534\t65534/m);
  expect(scoped).toEqual([child?.pid]);
  expect(supervisor.running).toBe(child);
  expect(events).toEqual(['child.started']);
});

test('a handover: the next one works only after the former one has ended', async () => {
  await works(children[0]);
  await supervisor.change(() => supervisor.launch('of another build'));
  // It fails to make the lock while the former one has it, and ends.
  await works(children[1]);
  expect(existsSync(`/proc/${children[0]?.pid}`)).toBe(false);
  expect(events).toEqual(['child.started', 'child.stopping', 'child.started']);
});

test('a death: respawned, with a back-off when they die young', async () => {
  await works(children[0]);
  now += 5_000;
  children[0]?.kill();
  await vi.waitFor(() => expect(children).toHaveLength(2), 5_000);
  await works(children[1]);
  expect(supervisor.respawns).toBe(1);
  const before = now;
  children[1]?.kill();
  await vi.waitFor(() => expect(children).toHaveLength(3), 5_000);
  await works(children[2]);
  expect(now - before).toBeGreaterThanOrEqual(100);
  expect(events.filter(event => event === 'child.died')).toHaveLength(2);
});

test('fault N2: a child that hangs is told after 3 s and replaced after 10 s in which this program ran', async () => {
  const [child] = children;
  await works(child);
  child?.tell('ask');
  await vi.waitFor(() => expect(child?.words).toContain('yes'), 5_000);
  child?.tell('hang');
  if (child) child.askedMs = now;
  pass(2);
  expect(supervisor.problem).toBeUndefined();
  // Time in which this program did not run counts as two seconds and a half.
  now += 3_600_000;
  supervisor.check();
  expect(supervisor.problem).toBe(`test child ${child?.pid} has not answered for 5 s`);
  pass(5);
  expect(supervisor.running).toBe(child);
  expect(events).toEqual(['child.started']);
  pass(2);
  await vi.waitFor(() => expect(children).toHaveLength(2), 5_000);
  await works(children[1]);
  expect(supervisor.problem).toBeUndefined();
  expect(events).toEqual(['child.started', 'child.hangs', 'child.died', 'child.started']);
});

test('it outlives its supervisor, and the next one adopts it', async () => {
  const [child] = children;
  await works(child);
  await supervisor.close();
  supervisor = open();
  if (child) supervisor.adopt(child);
  child?.tell('ask');
  await vi.waitFor(() => expect(child?.words).toContain('yes'), 5_000);
  child?.kill();
  await vi.waitFor(() => expect(children).toHaveLength(2), 5_000);
  await works(children[1]);
});

test('a next child that cannot start leaves the running one as it is', async () => {
  const [child] = children;
  await works(child);
  const failing = supervisor.change(async () => {
    throw new Error('no memory');
  });
  await expect(failing).rejects.toThrow('no memory');
  expect(supervisor.running).toBe(child);
  child?.tell('ask');
  await vi.waitFor(() => expect(child?.words).toContain('yes'), 5_000);
});
