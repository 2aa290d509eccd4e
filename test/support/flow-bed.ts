/**
 * Two hosts with real engines and somebody outside, and questions from each to each: who reaches whom, and as whom.
 * On each host run the containers `box` and `mate` on docker0 and `other` on a network of its own, which has the second
 * half of the host's subnet. Everybody answers on port 7000; containers also on 7001, which is published on the host:
 *
 *   box 7101   mate 7102   other 7103
 *
 *   world  192.0.2.23/24, knows nothing of the overlay        guest  192.0.2.22/24, has routes to it via the hosts
 *
 * Askers and the asked have names: `box` is the asker's own host's, `there.box` the other host's.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DockerEngine } from './docker-engine.js';
import type { Lab } from './lab.js';
import type { Flags, LabHost } from './lab-host.js';
import { flows, run, startService } from './tools.js';

const containers = ['box', 'mate', 'other', 'plain'] as const;
const networks: Readonly<Record<string, string>> = { other: 'otherhalf', plain: 'plain' };
const outside = { world: ['w', '192.0.2.23'], guest: ['v', '192.0.2.22'], stray: ['x', '192.0.2.21'] } as const;
type Outsider = keyof typeof outside;
const protocols = ['tcp', 'udp'] as const;
const patienceMs = 1200;

/** One line of a table of flows: `box there.host:7101`. */
export interface FlowQuestion {
  readonly asker: string;
  readonly asked: string;
}

interface Question {
  readonly token: string;
  readonly asker: string;
  readonly protocol: (typeof protocols)[number];
  readonly address: string;
  readonly port: string;
}

export class FlowBed {
  readonly #lab: Lab;
  /** Names of containers of a host to their pids. */
  #pids = new Map<string, number>();
  #addresses = new Map<string, string>();
  #count = 0;

  private constructor(lab: Lab) {
    this.#lab = lab;
  }

  /** tartand, then Docker, then containers, on both hosts at once. */
  static async open(lab: Lab, flags: Flags, masqueradeOther: boolean): Promise<FlowBed> {
    const bed = new FlowBed(lab);
    const opening = Object.values(outside).map(([letter, address]) => lab.spaces.openHost(letter, address, 1500));
    await Promise.all([...opening, ...lab.hosts.map(host => bed.#bringUp(host, flags, masqueradeOther))]);
    for (const host of lab.hosts) {
      bed.#serve(host.inside([flows, 'serve', '7000']), host.letter);
      for (const one of lab.hosts) {
        const [letter] = outside[one === host ? 'guest' : 'stray'];
        await run(lab.spaces.inside(letter, ['ip', 'route', 'add', host.subnet, 'via', one.address]));
      }
    }
    for (const [letter] of Object.values(outside)) bed.#serve(lab.spaces.inside(letter, [flows, 'serve', '7000']), letter);
    await lab.waitForRoutes();
    await bed.lookAround();
    return bed;
  }

  async #bringUp(host: LabHost, flags: Flags, masqueradeOther: boolean): Promise<void> {
    const engine = engineOf(host);
    await host.bringUp(flags);
    await engine.start();
    const half = host.subnet.replace(/0\/24$/, '128/25');
    const options = {
      'com.docker.network.driver.mtu': '1472',
      'com.docker.network.bridge.enable_ip_masquerade': String(masqueradeOther),
    };
    const words = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
    await engine.docker('network', 'create', '--subnet', half, ...words, 'otherhalf');
    await engine.docker('network', 'create', 'plain');
    for (const [i, name] of containers.entries()) {
      const port = `${7101 + i}:7001`;
      const network = networks[name];
      const command = ['flows', 'serve', '7000', '7001'];
      const where = network === undefined ? {} : { network };
      await engine.runContainer(name, { publish: [port, `${port}/udp`], command, ...where });
    }
  }

  #serve(command: readonly string[], letter: string): void {
    startService(command, join(this.#lab.spaces.directory, `${letter}.flows`));
  }

  /** Anew after containers were started: they may have other addresses. */
  async lookAround(): Promise<void> {
    await Promise.all(
      this.#lab.hosts.map(async host => {
        const { letter } = host;
        for (const name of containers) {
          this.#pids.set(`${letter}.${name}`, await engineOf(host).pidOf(name));
          this.#addresses.set(`${letter}.${name}`, await engineOf(host).addressOf(name));
        }
        this.#addresses.set(`${letter}.host`, host.address);
        this.#addresses.set(`${letter}.tunnel`, host.tunnelAddress);
        this.#addresses.set(`${letter}.bridge`, host.tunnelAddress.replace(/0$/, '1'));
      }),
    );
    for (const [name, [, address]] of Object.entries(outside)) this.#addresses.set(name, address);
    this.#addresses.set('loopback', '127.0.0.1');
  }

  /** The containers of a host again, after its engine ended them. */
  async startContainers(host: LabHost): Promise<void> {
    // One after another, so that each has its address again.
    for (const name of containers) await engineOf(host).docker('start', name);
  }

  async restartDocker(host: LabHost): Promise<void> {
    await engineOf(host).stopDaemon();
    await engineOf(host).startDaemon();
    await this.startContainers(host);
  }

  /** What a boot leaves of a host: files and Docker's data. */
  async reboot(host: LabHost): Promise<void> {
    await Promise.all([engineOf(host).stopDaemon(), host.stopDaemon()]);
    const files = [host.subnetFile, host.dockerEnvFile].map(path => [path, readFileSync(path)] as const);
    await host.tool('cleanup');
    for (const [path, bytes] of files) writeFileSync(path, bytes);
    const saved = await host.run('iptables-save');
    const flushed = saved.split('\n').flatMap(line => (/^:[A-Z]+ (ACCEPT|DROP)/.test(line) ? [line.replace('DROP', 'ACCEPT')] : /^(\*|COMMIT)/.test(line) ? [line] : []));
    await run(host.inside(['iptables-restore']), { input: `${flushed.join('\n')}\n` });
    await host.run('nft', 'flush', 'ruleset');
    for (const link of JSON.parse(await host.run('ip', '-j', 'link', 'show', 'type', 'bridge')) as { ifname: string }[])
      await host.run('ip', 'link', 'del', link.ifname);
    await host.run('sysctl', '-q', '-w', 'net.ipv4.ip_forward=0');
  }

  /**
   * The table with what is so: the name of whom the asked one saw, `unheard` after it when the answer did not come
   * back, or why there was none; different answers of protocols or of hosts one after another.
   */
  async answers(questions: readonly FlowQuestion[]): Promise<readonly string[]> {
    const { hosts } = this.#lab;
    const asked = questions.map(question => hosts.flatMap(host => protocols.map(protocol => this.#question(question, host, protocol))));
    const results = await this.#ask(asked.flatMap(cell => cell.map(({ question }) => question)));
    return asked.map(cell => {
      const words = cell.map(({ question, host, protocol }) => ({ host, protocol, word: this.#nameOf(results.get(question.token) ?? 'nothing', host) }));
      return summary(words);
    });
  }

  #question(q: FlowQuestion, host: LabHost, protocol: Question['protocol']) {
    const [place = '', port = ''] = q.asked.split(':');
    const asker = q.asker in outside ? q.asker : `${host.letter}.${q.asker}`;
    const other = this.#lab.hosts.find(one => one !== host)?.letter ?? '';
    const known = this.#addresses;
    const name = known.has(place) ? place : place.startsWith('there.') ? `${other}.${place.slice(6)}` : `${host.letter}.${place}`;
    const address = known.get(name);
    if (address === undefined) throw new Error(`nobody is called ${place}`);
    return { question: { token: `q${this.#count++}`, asker, protocol, address, port }, host, protocol };
  }

  async #ask(questions: readonly Question[]): Promise<ReadonlyMap<string, string>> {
    const results = new Map<string, string>();
    await Promise.all(
      [...new Set(questions.map(({ asker }) => asker))].map(async asker => {
        const mine = questions.filter(question => question.asker === asker);
        const input = mine.map(q => `${q.token} ${q.protocol} ${q.address} ${q.port}\n`).join('');
        const answer = await run(this.#at(asker, [flows, 'ask', String(patienceMs)]), { input });
        for (const [token = '', ...words] of answer.split('\n').map(line => line.split(' '))) results.set(token, words.join(' '));
      }),
    );
    const unanswered = questions.filter(({ token }) => results.get(token) === 'silence');
    if (unanswered.length > 0) {
      const heard = await this.#heard();
      for (const { token } of unanswered) if (heard.has(token)) results.set(token, `${heard.get(token)} unheard`);
    }
    return results;
  }

  #at(asker: string, command: readonly string[]): readonly string[] {
    const pid = this.#pids.get(asker);
    if (pid !== undefined) return ['nsenter', `--net=/proc/${pid}/ns/net`, ...command];
    const letter = asker in outside ? outside[asker as Outsider][0] : asker.replace('.host', '');
    return this.#lab.spaces.inside(letter, command);
  }

  /** What all who are asked have heard: token to source. */
  async #heard(): Promise<ReadonlyMap<string, string>> {
    const letters = [...this.#lab.hosts.map(({ letter }) => letter), ...Object.values(outside).map(([letter]) => letter)];
    const texts = letters.map(letter => readFileSync(join(this.#lab.spaces.directory, `${letter}.flows`), 'utf8'));
    for (const host of this.#lab.hosts) for (const name of containers) texts.push(await engineOf(host).docker('logs', name));
    const lines = texts.flatMap(text => text.split('\n')).map(line => line.split(' '));
    return new Map(lines.map(([token = '', source = '']) => [token, source]));
  }

  /** Of an address, from where that host stands. */
  #nameOf(result: string, host: LabHost): string {
    const [address, ...more] = result.split(' ');
    const name = [...this.#addresses].find(([, value]) => value === address)?.[0];
    if (name === undefined) return result;
    const [letter = '', ofHost] = name.split('.');
    const short = ofHost === undefined ? letter : letter === host.letter ? ofHost : `there.${ofHost}`;
    return [short, ...more].join(' ');
  }
}

interface Word {
  readonly host: LabHost;
  readonly protocol: string;
  readonly word: string;
}

function summary(words: readonly Word[]): string {
  const [first, ...others] = words;
  if (first === undefined) return '';
  if (others.every(({ word }) => word === first.word)) return first.word;
  const byProtocol = protocols.map(protocol => words.filter(one => one.protocol === protocol));
  if (byProtocol.every(ones => ones.every(({ word }) => word === ones[0]?.word)))
    return byProtocol.map(ones => `${ones[0]?.protocol} ${ones[0]?.word}`).join(', ');
  return words.map(({ host, protocol, word }) => `${protocol} from ${host.letter} ${word}`).join(', ');
}

export function engineOf(host: LabHost): DockerEngine {
  if (!host.engine) throw new Error(`host ${host.letter} has no Docker engine`);
  return host.engine;
}
