/**
 * A host of a lab that a real systemd runs (systemd.sh): the units of config/systemd and of Debian's Docker packages,
 * our programs installed as an operator would, or the root tree of a distribution as that starts it. The reaper ends it
 * with its namespace.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { dirname, join } from 'node:path';
import type { Namespaces } from './namespaces.js';
import { attempt, hasEnded, root, run, startService, until, type Outcome, type RunOptions } from './tools.js';

const programs = ['/usr/lib/systemd/systemd', '/lib/systemd/systemd'];
const ownUnits = join(root, 'config/systemd');

/** As a login of root has it, and nothing of this machine. */
const rootEnvironment = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'HOME=/root',
  'TERM=dumb',
];

/** What is started at boot beside D-Bus. */
const targets = {
  units: 'tartand.service docker.service docker.socket',
  enabled: 'systemd-journald.socket systemd-journald.service multi-user.target',
  nothing: '',
};

export class SystemdHost {
  readonly #spaces: Namespaces;
  readonly #letter: string;
  readonly #directory: string;
  readonly #starts: keyof typeof targets;
  readonly #lower: string;
  #program: ChildProcess | undefined;
  /** Process 1 of the host, by its number here. */
  #init = 0;

  /**
   * @param letter of a namespace that is on the underlay already
   * @param starts at boot; ours are installed for `units` alone
   * @param lower a root tree that trees.sh made, which starts what it starts by itself
   */
  constructor(spaces: Namespaces, letter: string, starts: keyof typeof targets = 'units', lower = '/') {
    this.#starts = starts;
    this.#lower = lower;
    this.#spaces = spaces;
    this.#letter = letter;
    this.#directory = join(spaces.directory, letter);
  }

  /** Our units are enabled. @param files of its /etc beside them, by path below it */
  async boot(files: Readonly<Record<string, string>>): Promise<void> {
    const etc = join(this.#directory, 'etc');
    mkdirSync(etc, { recursive: true });
    if (this.#lower === '/') this.#writeUnits(etc);
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(etc, path)), { recursive: true });
      writeFileSync(join(etc, path), text);
    }
    const script = join(root, 'test/support/systemd.sh');
    const log = join(this.#directory, 'systemd.log');
    const machine = this.#lower === '/' ? [root, process.execPath] : [];
    this.#program = startService(
      [script, this.#spaces.name(this.#letter), this.#directory, this.#lower, ...machine],
      log,
    );
    await this.#untilBooted(log);
  }

  #writeUnits(etc: string): void {
    const units = join(etc, 'systemd/system');
    mkdirSync(units, { recursive: true });
    for (const name of this.#starts === 'units' ? ['tartand.service', 'docker.service.d'] : [])
      cpSync(join(ownUnits, name), join(units, name), { recursive: true });
    if (this.#starts === 'units') {
      mkdirSync(join(units, 'docker.service.wants'));
      symlinkSync('../tartand.service', join(units, 'docker.service.wants/tartand.service'));
    }
    writeFileSync(
      join(units, 'test.target'),
      `[Unit]\nDefaultDependencies=no\nWants=dbus.socket ${targets[this.#starts]}\n`,
    );
  }

  /** Everything ends in its order, and starts again. */
  async reboot(): Promise<void> {
    const before = this.#init;
    await this.attempt(['systemctl', 'reboot']);
    await until('the end of systemd', () => !existsSync(`/proc/${before}`), 30_000);
    await this.#untilBooted(join(this.#directory, 'systemd.log'));
  }

  async #untilBooted(log: string): Promise<void> {
    await until('a running systemd', async () => {
      const program = this.#program;
      if (program === undefined || hasEnded(program))
        throw new Error(`systemd ended: ${readFileSync(log, 'utf8').slice(-2000)}`);
      this.#init = initOf(program);
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
    return attempt(this.inside(command), o);
  }

  /** Must succeed; its standard output. */
  run(command: readonly string[], o: RunOptions = {}): Promise<string> {
    return run(this.inside(command), o);
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

  /** What has been sent to the journal stands in it. @param words of journalctl */
  async journal(...words: readonly string[]): Promise<string> {
    await this.run(['journalctl', '--sync']);
    return this.run(['journalctl', '--no-pager', ...words]);
  }

  /** What systemd thinks of our units, and the last of what they said. */
  async lastWords(): Promise<string> {
    const state = await this.attempt(['systemctl', '--no-pager', 'status', 'tartand.service', 'docker.service']);
    const said = await this.attempt(['sh', '-c', 'tail -n 12 /run/tartand.log /run/docker.log']);
    const noted = await this.attempt(['journalctl', '--no-pager', '-o', 'cat', '-n', '40']);
    return `--- systemd on host ${this.#letter}\n${state.stdout}${said.stdout}${noted.stdout}`;
  }

  /** The command as it is run there by this machine. */
  protected inside(command: readonly string[]): readonly string[] {
    const words = this.#lower === '/' ? command : ['env', '-i', ...rootEnvironment, ...command];
    return ['nsenter', '-t', String(this.#init), '-m', '-u', '-i', '-n', '-p', '-C', '--', ...words];
  }
}

/** The first process of the new pid namespace, once it has become systemd. */
function initOf(child: ChildProcess): number {
  const pid = childOf(childOf(child.pid));
  if (!pid || !programs.includes(readlinkSync(`/proc/${pid}/exe`))) throw new Error('systemd was not started yet');
  return pid;
}

function childOf(pid = 0): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
}

function networkOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}
