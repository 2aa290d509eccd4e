/** The two hosts of datapath-lab.ts with both engines, and what the tests of the kernel engine ask of them. */
import { spawn, type ChildProcess } from 'node:child_process';
import type { KernelOffer } from '../../src/model/features.js';
import type { EngineChoice } from '../../src/model/plan.js';
import type { PeerMeasurement } from '../../src/datapath/datapath.js';
import { innerPacket } from '../support/inner-packet.js';
import { Lab, until, type Daemon, type Host, type State } from './datapath-lab.js';

export const kernelMtu = 1464;

export interface KernelState extends State {
  readonly kernelOffer: KernelOffer | undefined;
}

/** I and P bits, next protocol IPv4, VNI 1 (draft-ietf-nvo3-vxlan-gpe). */
const gpeHeader = Buffer.from([0x0c, 0, 0, 1, 0, 0, 1, 0]);

export class KernelLab extends Lab {
  engine: EngineChoice = 'kernel';

  override config(host: Host): object {
    return { ...super.config(host), mtu: kernelMtu, engine: this.engine };
  }

  override peer(node: number): object {
    return { ...super.peer(node), features: 1, kernel: { port: 4790, vni: 1 } };
  }

  /** Runs in the namespace of a host. */
  inside(host: Host, ...command: readonly string[]): readonly [string, ...string[]] {
    return this.enter(host, command);
  }

  async kernelUp(host: Host): Promise<Daemon> {
    const { daemon } = await this.up(host, { engines: true });
    this.configureLink(host);
    return daemon;
  }

  /**
   * A stranger on b: it sends a's tunnel the packets of a member, one a millisecond for twenty seconds at most.
   * @param to the inner destinations
   */
  flood(source: string, to: readonly string[]): ChildProcess {
    const packets = to.map((destination, number) =>
      innerPacket({ number, bytes: 64, source: '10.5.2.7', destination, port: 9 }),
    );
    const datagrams = packets.map(packet => Buffer.concat([gpeHeader, packet]).toString('hex'));
    const program = `const socket = require('dgram').createSocket('udp4');
      const packets = process.argv.slice(1).map(text => Buffer.from(text, 'hex'));
      let sent = 0;
      const send = () => socket.send(packets[sent % packets.length], 4790, '192.0.2.1', () => {
        if (++sent < 20000) setTimeout(send, 1); else process.exit();
      });
      socket.bind(0, '${source}', send);`;
    const [command, ...args] = this.inside('b', process.execPath, '-e', program, ...datagrams);
    return spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  }

  /** Both hosts, with the pair in the kernel on both sides. */
  async bothInKernel(): Promise<{ readonly a: Daemon; readonly b: Daemon }> {
    const [a, b] = await Promise.all([this.kernelUp('a'), this.kernelUp('b')]);
    await until(
      'traffic',
      () => this.reaches(),
      seen => seen,
    );
    await Promise.all([untilEngine(a, 'kernel'), untilEngine(b, 'kernel')]);
    return { a, b };
  }
}

export async function kernelState(daemon: Daemon): Promise<KernelState> {
  return (await daemon.state()) as KernelState;
}

/** What a daemon says of its only peer. */
export async function pairOf(daemon: Daemon): Promise<PeerMeasurement | undefined> {
  return ((await daemon.call('measure')) as readonly PeerMeasurement[])[0];
}

export async function untilEngine(daemon: Daemon, engine: 'user' | 'kernel', limitMs?: number): Promise<void> {
  await until(
    `engine ${engine}`,
    async () => ({ pair: await pairOf(daemon), state: await daemon.state() }),
    seen => seen.pair?.engine === engine,
    limitMs,
  );
}
