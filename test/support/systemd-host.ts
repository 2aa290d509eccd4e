/**
 * A host of a lab that a real systemd runs (systemd.sh): the units of config/systemd and of Debian's Docker packages,
 * our programs installed as an operator would. The reaper ends it with its namespace.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { dirname, join } from 'node:path';
import type { Namespaces } from './namespaces.js';
import { attempt, hasEnded, root, run, startService, until, type Outcome, type RunOptions } from './tools.js';

const programs = ['/usr/lib/systemd/systemd', '/lib/systemd/systemd'];
const ownUnits = join(root, 'config/systemd');

/** What is started at boot. */
const idleTarget = '[Unit]\nDefaultDependencies=no\nWants=dbus.socket\n';
const target = `${idleTarget}Wants=tartand.service docker.service docker.socket\n`;

export class SystemdHost {
  readonly #spaces: Namespaces;
  readonly #letter: string;
  readonly #directory: string;
  readonly #withUnits: boolean;
  /** Process 1 of the host, by its number here. */
  #init = 0;

  /**
   * @param letter of a namespace that is on the underlay already
   * @param withUnits false: our units are not installed and nothing is started at boot
   */
  constructor(spaces: Namespaces, letter: string, { withUnits = true } = {}) {
    this.#withUnits = withUnits;
    this.#spaces = spaces;
    this.#letter = letter;
    this.#directory = join(spaces.directory, letter);
  }

  /** @param files of its /etc beside our units, by path below it */
  async boot(files: Readonly<Record<string, string>>): Promise<void> {
    const etc = join(this.#directory, 'etc');
    const units = join(etc, 'systemd/system');
    mkdirSync(units, { recursive: true });
    for (const name of this.#withUnits ? ['tartand.service', 'docker.service.d'] : [])
      cpSync(join(ownUnits, name), join(units, name), { recursive: true });
    for (const [path, text] of Object.entries({
      ...files,
      'systemd/system/test.target': this.#withUnits ? target : idleTarget,
    })) {
      mkdirSync(dirname(join(etc, path)), { recursive: true });
      writeFileSync(join(etc, path), text);
    }
    const script = join(root, 'test/support/systemd.sh');
    const log = join(this.#directory, 'systemd.log');
    const child = startService([script, this.#spaces.name(this.#letter), this.#directory, root, process.execPath], log);
    await until('a running systemd', async () => {
      if (hasEnded(child)) throw new Error(`systemd ended: ${readFileSync(log, 'utf8').slice(-2000)}`);
      this.#init = initOf(child);
      return (await this.attempt(['systemctl', 'list-jobs'])).status === 0;
    });
  }

  /** A file of the host, by its path here. */
  path(file: string): string {
    return `/proc/${this.#init}/root${file}`;
  }

  read(file: string): string {
    return readFileSync(this.path(file), 'utf8');
  }

  write(file: string, text: string): void {
    mkdirSync(dirname(this.path(file)), { recursive: true });
    writeFileSync(this.path(file), text);
  }

  attempt(command: readonly string[], o: RunOptions = {}): Promise<Outcome> {
    return attempt(this.#inside(command), o);
  }

  /** Must succeed; its standard output. */
  run(command: readonly string[], o: RunOptions = {}): Promise<string> {
    return run(this.#inside(command), o);
  }

  systemctl(...args: readonly string[]): Promise<string> {
    return this.run(['systemctl', ...args]);
  }

  /** A property of a unit as systemctl(1) shows it. */
  async show(unit: string, property: string): Promise<string> {
    return (await this.systemctl('show', unit, '--value', '-p', property)).trim();
  }

  async mainPid(unit: string): Promise<number> {
    return Number(await this.show(unit, 'MainPID'));
  }

  untilActive(unit: string): Promise<boolean> {
    return until(`${unit} is active`, async () => (await this.show(unit, 'ActiveState')) === 'active', 30_000);
  }

  /** Gives the network namespace of a process of the host (a container) the name of its container. */
  async adoptContainer(pid: number): Promise<void> {
    const namespace = readlinkSync(this.path(`/proc/${pid}/ns/net`));
    const outer = readdirSync('/proc').find(name => /^\d+$/.test(name) && networkOf(name) === namespace);
    await this.#spaces.adoptContainer(this.#letter, Number(outer));
  }

  /** Lets a journal take what systemd itself says of a unit, from now on. */
  async startJournal(): Promise<void> {
    await this.systemctl('start', 'systemd-journald');
    await this.systemctl('log-target', 'journal');
  }

  journal(unit: string): Promise<string> {
    return this.run(['journalctl', '--no-pager', '-o', 'cat', `UNIT=${unit}`]);
  }

  /** What systemd thinks of our units, and the last of what they said. */
  async lastWords(): Promise<string> {
    const state = await this.attempt(['systemctl', '--no-pager', 'status', 'tartand.service', 'docker.service']);
    const said = await this.attempt(['sh', '-c', 'tail -n 12 /run/tartand.log /run/docker.log']);
    return `--- systemd on host ${this.#letter}\n${state.stdout}${said.stdout}`;
  }

  #inside(command: readonly string[]): readonly string[] {
    return ['nsenter', '-t', String(this.#init), '-m', '-u', '-i', '-n', '-p', '-C', '--', ...command];
  }
}

/** The first process of the new pid namespace, once it has become systemd. */
function initOf(child: ChildProcess): number {
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
  const pid = Number(children.split(' ')[0]);
  if (!pid || !programs.includes(readlinkSync(`/proc/${pid}/exe`))) throw new Error('systemd was not started yet');
  return pid;
}

function networkOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}
