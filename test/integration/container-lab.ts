/**
 * A container behind each host of datapath-lab.ts:
 *
 *   [ac] 10.5.1.2 - box 10.5.1.1 [a] tartan0 - 192.0.2.1 ---- veth ---- 192.0.2.2 - tartan0 [b] 10.5.2.1 box - 10.5.2.2 [bc]
 */
import { setTimeout as delay } from 'node:timers/promises';
import { attempt } from '../support/tools.js';
import type { Places } from '../support/traffic.js';
import { run, type Host, type Lab } from './datapath-lab.js';

export const hosts = ['a', 'b'] as const;
export const number = { a: 1, b: 2 } as const;
export const other = { a: 'b', b: 'a' } as const;

export class Containers implements Places {
  readonly #lab: Lab;

  /** Opens both. The hosts are up. */
  constructor(lab: Lab) {
    this.#lab = lab;
    for (const host of hosts) this.#open(host);
  }

  #open(host: Host): void {
    const [lab, namespace, gateway] = [this.#lab, this.namespace(host), `10.5.${number[host]}.1`];
    run('ip', 'netns', 'add', namespace);
    lab.ip(host, 'link', 'add', 'box', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
    lab.ip(host, 'address', 'add', `${gateway}/24`, 'dev', 'box');
    lab.ip(host, 'link', 'set', 'box', 'up', 'mtu', '1472');
    run('ip', '-n', namespace, 'address', 'add', `${this.address(host)}/24`, 'dev', 'eth0');
    run('ip', '-n', namespace, 'link', 'set', 'eth0', 'up', 'mtu', '1472');
    run('ip', '-n', namespace, 'route', 'add', 'default', 'via', gateway);
    const inHost = ['netns', 'exec', lab.namespace(host)] as const;
    // As the host adapter sets them (backend/udp.ts).
    for (const setting of ['ip_forward=1', 'conf.tartan0.accept_local=1'])
      run('ip', ...inHost, 'sysctl', '-qw', `net.ipv4.${setting}`);
  }

  close(): void {
    for (const host of hosts) run('ip', 'netns', 'delete', this.namespace(host));
  }

  namespace(host: Host): string {
    return `${this.#lab.namespace(host)}c`;
  }

  address(host: Host): string {
    return `10.5.${number[host]}.2`;
  }

  inside(letter: string, command: readonly string[]): readonly [string, ...string[]] {
    return ['ip', 'netns', 'exec', this.namespace(letter === 'a' ? 'a' : 'b'), ...command];
  }

  run(host: Host, ...command: readonly string[]): string {
    return run(...this.inside(host, command));
  }

  /** The path to the other host carries outer packets of so many bytes; both ends' links carry 1500. */
  narrow(host: Host, bytes: number): void {
    const how = ['dev', 'under', 'src', `192.0.2.${number[host]}`];
    this.#lab.ip(host, 'route', 'replace', `192.0.2.${number[other[host]]}/32`, ...how, 'mtu', 'lock', String(bytes));
  }

  widen(host: Host): void {
    this.#lab.ip(host, 'route', 'delete', `192.0.2.${number[other[host]]}/32`);
  }

  /** TCP and UDP sockets of the containers send without DF (ip-sysctl: ip_no_pmtu_disc), or with DF again. */
  discoverPathMtu(on: boolean): void {
    for (const host of hosts) this.run(host, 'sysctl', '-qw', `net.ipv4.ip_no_pmtu_disc=${on ? 0 : 1}`);
  }
}

/** Answers that the kernel of a namespace has received. ping does not wait for those that come after two round trips. */
function answers(namespace: string): number {
  const text = run('ip', 'netns', 'exec', namespace, 'nstat', '-asz', 'IcmpInEchoReps');
  return Number(/IcmpInEchoReps +(\d+)/.exec(text)?.[1]);
}

/** How many of a hundred echoes come back, from a namespace to an address. */
export async function echoes(
  namespace: string,
  to: string,
  bytes: number,
  more: readonly string[] = [],
): Promise<number> {
  const before = answers(namespace);
  const ping = ['ping', '-n', '-q', '-c', '100', '-i', '0.002', '-W', '1', '-s', String(bytes), ...more, to];
  await attempt(['ip', 'netns', 'exec', namespace, ...ping]);
  for (let tries = 0; tries < 50 && answers(namespace) < before + 100; tries++) await delay(10);
  return answers(namespace) - before;
}

export const withoutDf = ['-M', 'dont'];
