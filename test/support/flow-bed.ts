/**
 * Two hosts with real engines, three hosts outside, and questions from each to each: who reaches whom, and as whom. On
 * each host run the containers `box` and `mate` on docker0, which has the first half of the host's subnet, `other` on a
 * network that has the second half, and `plain` on a network of Docker's own choosing. Everybody answers on port 7000;
 * containers also on 7001, which is published on their host as
 *
 *   box 7101   mate 7102   other 7103   plain 7104
 *
 *   world 192.0.2.23   knows no way to the overlay
 *   guest 192.0.2.22   has routes to the hosts' subnets via the hosts that have them
 *   stray 192.0.2.21   has routes to them via the host that has the other
 *
 * Askers and the asked have names: `box` is of the host at which the row is read, `there.box` of the other one.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DockerEngine, EngineOptions } from './docker-engine.js';
import type { Lab } from './lab.js';
import type { Flags, LabHost } from './lab-host.js';
import { flows, run, startService, until } from './tools.js';

const containers = ['box', 'mate', 'other', 'plain'] as const;
const networks: Readonly<Record<string, string>> = { other: 'otherhalf', plain: 'plain' };
const outside = { world: ['w', '192.0.2.23'], guest: ['v', '192.0.2.22'], stray: ['x', '192.0.2.21'] } as const;
const outsiders: ReadonlyMap<string, readonly [letter: string, address: string]> = new Map(Object.entries(outside));
const protocols = ['tcp', 'udp'] as const;
const patienceMs = 1000;

/** Who masquerades: what tartand is told, and what the administrator makes Docker do. */
export const masquerades = {
  tartand: { tartand: true, docker: false },
  both: { tartand: true, docker: true },
  Docker: { tartand: false, docker: true },
  nobody: { tartand: false, docker: false },
} as const;
export type Masquerade = keyof typeof masquerades;

/** `box` asks `there.host:7101`. */
export interface FlowQuestion {
  readonly asker: string;
  readonly asked: string;
}

interface Question {
  readonly token: string;
  readonly host: LabHost;
  readonly asker: string;
  readonly protocol: (typeof protocols)[number];
  readonly address: string;
  readonly port: string;
}

export class FlowBed {
  readonly #lab: Lab;
  readonly #flags: Flags;
  readonly #masquerade: boolean;
  /** By `LETTER.NAME`, or the name of an outsider. */
  readonly #pids = new Map<string, number>();
  readonly #addresses = new Map<string, string>([['loopback', '127.0.0.1']]);
  #count = 0;

  private constructor(lab: Lab, masquerade: Masquerade) {
    this.#lab = lab;
    this.#flags = { 'ip-masq': String(masquerades[masquerade].tartand), 'docker-subnet-len': '25' };
    this.#masquerade = masquerades[masquerade].docker;
  }

  /** What the engines of the lab are to be started with. */
  static engineWords(masquerade: Masquerade): Required<Pick<EngineOptions, 'words'>> {
    const own = `--ip-masq=${masquerades[masquerade].docker}`;
    return { words: words => words.map(word => (word.startsWith('--ip-masq') ? own : word)) };
  }

  /** tartand, then Docker, then containers, on both hosts at once. */
  static async open(lab: Lab, masquerade: Masquerade): Promise<FlowBed> {
    const bed = new FlowBed(lab, masquerade);
    const opening = [...outsiders.values()].map(([letter, address]) => lab.spaces.openHost(letter, address, 1500));
    await Promise.all([...opening, ...lab.hosts.map(host => bed.#bringUp(host))]);
    for (const [name, [letter, address]] of outsiders) {
      bed.#addresses.set(name, address);
      bed.#serve(lab.spaces.inside(letter, [flows, 'serve', '7000']), letter);
    }
    for (const host of lab.hosts) {
      bed.#serve(host.inside([flows, 'serve', '7000']), host.letter);
      for (const via of lab.hosts) {
        const [letter] = outside[via === host ? 'guest' : 'stray'];
        await run(lab.spaces.inside(letter, ['ip', 'route', 'add', host.subnet, 'via', via.address]));
      }
    }
    await bed.#settle();
    return bed;
  }

  async #bringUp(host: LabHost): Promise<void> {
    const engine = engineOf(host);
    await host.bringUp(this.#flags);
    await engine.start();
    await this.#makeOther(host, engine);
    await engine.docker('network', 'create', 'plain');
    for (const [i, name] of containers.entries()) {
      const port = `${7101 + i}:7001`;
      const publish = [port, `${port}/udp`];
      const network = networks[name];
      const command = ['flows', 'serve', '7000', '7001'];
      await engine.runContainer(name, { publish, command, ...(network === undefined ? {} : { network }) });
    }
  }

  /** By the tool; by hand where an administrator wants Docker to masquerade. */
  async #makeOther(host: LabHost, engine: DockerEngine): Promise<void> {
    const subnet = host.subnet.replace('.0/24', '.128/25');
    if (this.#masquerade) {
      const mtu = `com.docker.network.driver.mtu=${host.tunnelMtu}`;
      await engine.docker('network', 'create', '--subnet', subnet, '-o', mtu, 'otherhalf');
    } else {
      const words = ['network', 'create', 'otherhalf', '--subnet', subnet, '--docker-host', engine.url];
      const { status, stderr } = await host.tool('docker', ...words);
      if (status !== 0) throw new Error(`tartan docker network create: ${stderr}`);
    }
  }

  #serve(command: readonly string[], letter: string): void {
    startService(command, join(this.#lab.spaces.directory, `${letter}.flows`));
  }

  restartDocker(): Promise<void> {
    return this.#onBoth(async host => {
      await engineOf(host).stopDaemon();
      await this.#startDocker(host);
    });
  }

  restartTartand(): Promise<void> {
    return this.#onBoth(async host => {
      await host.stopDaemon();
      await host.startDaemon(this.#flags).waitForEvent('daemon.ready');
    });
  }

  /** As after a boot where Docker, with the file of the last life of tartand, is quicker than tartand. */
  rebootDockerFirst(): Promise<void> {
    return this.#onBoth(async host => {
      await engineOf(host).stopDaemon();
      await host.stopDaemon();
      await forgetAll(host);
      await this.#startDocker(host);
      await host.startDaemon(this.#flags).waitForEvent('daemon.ready');
    });
  }

  async #startDocker(host: LabHost): Promise<void> {
    await engineOf(host).startDaemon();
    // One after another, so that each has its address again.
    for (const name of containers) await engineOf(host).docker('start', name);
  }

  async #onBoth(work: (host: LabHost) => Promise<void>): Promise<void> {
    await Promise.all(this.#lab.hosts.map(work));
    await this.#settle();
  }

  async #settle(): Promise<void> {
    await this.#lab.waitForRoutes();
    await Promise.all(this.#lab.hosts.map(host => this.#lookAround(host)));
  }

  async #lookAround(host: LabHost): Promise<void> {
    const { letter, address, tunnelAddress, subnet } = host;
    for (const name of containers) {
      this.#pids.set(`${letter}.${name}`, await engineOf(host).pidOf(name));
      this.#addresses.set(`${letter}.${name}`, await engineOf(host).addressOf(name));
    }
    const own = { host: address, tunnel: tunnelAddress };
    const bridges = { bridge: subnet.replace('.0/24', '.1'), otherbridge: subnet.replace('.0/24', '.129') };
    for (const [name, value] of Object.entries({ ...own, ...bridges })) this.#addresses.set(`${letter}.${name}`, value);
  }

  /**
   * What is so: the name of whom the asked one saw, with `unheard` when the answer did not come back, or why there was
   * no answer. One word where both protocols and both hosts agree, else all that differs.
   */
  async answers(asked: readonly FlowQuestion[]): Promise<readonly string[]> {
    const cells = asked.map(one =>
      this.#lab.hosts.flatMap(host => protocols.map(protocol => this.#question(one, host, protocol))),
    );
    const results = await this.#ask(cells.flat());
    return cells.map(cell => summary(cell.map(q => [q, this.#nameOf(results.get(q.token) ?? 'nothing', q.host)])));
  }

  /** Asks until both hosts send to each other by the kernel engine. */
  async untilByKernel(): Promise<void> {
    await until(
      'both by the kernel',
      async () => {
        await this.answers([{ asker: 'box', asked: 'there.box:7000' }]);
        const all = await Promise.all(this.#lab.hosts.map(host => host.status()));
        return all.every(({ peers }) => peers.every(({ watched }) => watched?.engine === 'kernel'));
      },
      60_000,
    );
  }

  #question({ asker, asked }: FlowQuestion, host: LabHost, protocol: Question['protocol']): Question {
    const [place = '', port = ''] = asked.split(':');
    const other = this.#lab.hosts.find(one => one !== host);
    const ofHost = place.startsWith('there.') ? place.replace('there', other?.letter ?? '') : `${host.letter}.${place}`;
    const address = this.#addresses.get(place) ?? this.#addresses.get(ofHost);
    if (address === undefined) throw new Error(`nobody is called ${place}`);
    const from = outsiders.has(asker) ? asker : `${host.letter}.${asker}`;
    return { token: `q${this.#count++}`, host, asker: from, protocol, address, port };
  }

  async #ask(questions: readonly Question[]): Promise<ReadonlyMap<string, string>> {
    const results = new Map<string, string>();
    const askAll = async (asker: string): Promise<void> => {
      const own = questions.filter(question => question.asker === asker);
      const input = own.map(q => `${q.token} ${q.protocol} ${q.address} ${q.port}\n`).join('');
      const answer = await run(this.#at(asker, [flows, 'ask', String(patienceMs)]), { input });
      for (const line of answer.split('\n')) results.set(line.split(' ', 1)[0] ?? '', line.replace(/^\S+ /, ''));
    };
    await Promise.all([...new Set(questions.map(({ asker }) => asker))].map(askAll));
    const unanswered = questions.filter(({ token }) => results.get(token) === 'silence');
    const heard = unanswered.length > 0 ? await this.#heard() : new Map<string, string>();
    for (const { token } of unanswered) if (heard.has(token)) results.set(token, `${heard.get(token)} unheard`);
    return results;
  }

  /** A command in the network namespace of an asker. */
  #at(asker: string, command: readonly string[]): readonly string[] {
    const pid = this.#pids.get(asker);
    if (pid !== undefined) return ['nsenter', `--net=/proc/${pid}/ns/net`, ...command];
    return this.#lab.spaces.inside(outsiders.get(asker)?.[0] ?? asker.replace('.host', ''), command);
  }

  /** All that was asked and arrived: token to source. */
  async #heard(): Promise<ReadonlyMap<string, string>> {
    const { hosts, spaces } = this.#lab;
    const letters = [...hosts.map(({ letter }) => letter), ...[...outsiders.values()].map(([letter]) => letter)];
    const logs = hosts.flatMap(host => containers.map(name => engineOf(host).docker('logs', name)));
    const texts = letters.map(letter => readFileSync(join(spaces.directory, `${letter}.flows`), 'utf8'));
    const lines = [...texts, ...(await Promise.all(logs))].flatMap(text => text.split('\n'));
    return new Map(lines.map(line => [line.split(' ', 1)[0] ?? '', line.replace(/^\S+ /, '')]));
  }

  /** From where that host stands. */
  #nameOf(result: string, host: LabHost): string {
    const [address, ...more] = result.split(' ');
    const name = [...this.#addresses].find(([, value]) => value === address)?.[0] ?? result;
    const [letter, ofHost] = name.split('.');
    if (ofHost === undefined || name === result) return [name, ...more].join(' ');
    return [letter === host.letter ? ofHost : `there.${ofHost}`, ...more].join(' ');
  }
}

export function engineOf(host: LabHost): DockerEngine {
  if (!host.engine) throw new Error(`host ${host.letter} has no Docker engine`);
  return host.engine;
}

/** What a boot forgets: rules, links, the data process, settings. Files stay, and so does what Docker stored. */
async function forgetAll(host: LabHost): Promise<void> {
  const files = [host.subnetFile, host.dockerEnvFile].map(path => [path, readFileSync(path)] as const);
  const { status, stderr } = await host.tool('cleanup');
  if (status !== 0) throw new Error(`tartan cleanup: ${stderr}`);
  for (const [path, bytes] of files) writeFileSync(path, bytes);
  // Each table with its built-in chains only.
  const saved = (await host.run('iptables-save')).split('\n');
  const kept = saved.filter(line => /^(\*|COMMIT|:[A-Z]+ (ACCEPT|DROP) )/.test(line));
  const input = kept.map(line => `${line.replace(' DROP ', ' ACCEPT ')}\n`).join('');
  await run(host.inside(['iptables-restore']), { input });
  await host.run('nft', 'flush', 'ruleset');
  const bridges = JSON.parse(await host.run('ip', '-j', 'link', 'show', 'type', 'bridge')) as readonly {
    ifname: string;
  }[];
  for (const { ifname } of bridges) await host.run('ip', 'link', 'delete', ifname);
  await host.run('sysctl', '-q', '-w', 'net.ipv4.ip_forward=0');
}

function summary(cell: readonly (readonly [Question, string])[]): string {
  const words = new Set(cell.map(([, word]) => word));
  if (words.size === 1) return [...words].join('');
  const byProtocol = new Set(cell.map(([{ protocol }, word]) => `${protocol} ${word}`));
  if (byProtocol.size === protocols.length) return [...byProtocol].join(', ');
  return cell.map(([{ protocol, host }, word]) => `${protocol} at ${host.letter} ${word}`).join(', ');
}
