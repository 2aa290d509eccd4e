/** An agent on fakes for the unit tests, with a state directory of its own for each test. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { Agent } from '../../src/agent/agent.js';
import { LocalNode } from '../../src/agent/local-node.js';
import type { AgentOptions } from '../../src/agent/ports.js';
import { StateFile } from '../../src/agent/state-file.js';
import { chooseBackend } from '../../src/backend/all.js';
import type { DockerSettings } from '../../src/docker/docker.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { UnderlayAddress } from '../../src/model/node.js';
import { FakeDatapath, FakeHost, FakeStore, never, tick } from './fakes.js';

export const address = parseIpv4('192.0.2.1');
export const underlay = { publicIp: address, interface: { name: 'eth0', address, mtu: 1500 } };
let stateDir: string;
export let stop: AbortController;
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'tartan-agent-'));
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  // An agent writes its state once more at its end.
  await Promise.allSettled(runs.splice(0));
  rmSync(stateDir, { recursive: true });
});

const runs: Promise<unknown>[] = [];

class WatchedAgent extends Agent {
  override run(signal: AbortSignal): ReturnType<Agent['run']> {
    const running = super.run(signal);
    runs.push(running);
    return running;
  }
}

export function make(options: Partial<AgentOptions> = {}, needsForwarding = false, chosen: UnderlayAddress = underlay) {
  const [store, host, datapath] = [new FakeStore(), new FakeHost(), new FakeDatapath()];
  const [events, notified, conflicts]: [string[], string[], string[]] = [[], [], []];
  const written: DockerSettings[] = [];
  const say = (event: string): void => void events.push(event);
  const clock = {
    now: () => 1000,
    sleep: (ms: number, signal: AbortSignal) => (ms >= 1000 ? never(signal) : tick(signal)),
  };
  const docker = {
    previousSubnet: () => parsePrefix('10.5.9.0/24'),
    isChangedByOthers: () => false,
    write: async (settings: DockerSettings) => {
      if (JSON.stringify(settings) !== JSON.stringify(written.at(-1))) written.push(settings);
      return { written: [], conflicts: [...conflicts], needsForwarding };
    },
  };
  const agent = new WatchedAgent(
    {
      store,
      host,
      openIcmp: () => ({ ask: () => false, close: () => {} }),
      underlay: {
        choose: async () => chosen,
        check: () => {},
        refresh: async () => {},
        current: async () => undefined,
      },
      node: new LocalNode({ id: 'n', bootId: 'b' }, underlay),
      datapath,
      docker,
      state: new StateFile(stateDir),
      clock,
      wallNow: () => 0,
      log: { debug: () => {}, info: say, warn: say, error: say },
      notify: state => void (state.startsWith('READY=1') && notified.push('READY=1')),
    },
    {
      networkName: 'default',
      ttlSeconds: 60,
      resyncMs: 60_000,
      peerHoldMs: 60_000,
      onLost: 'exit',
      ipMasquerade: 'on',
      forwardRules: true,
      subnetFile: '/run/flannel/subnet.env',
      dockerEnvFile: '/run/tartan/docker.env',
      docker: { subnetLength: 0, pools: false, config: 'env', daemonJsonFile: '/etc/docker/daemon.json' },
      checkSource: true,
      checkDestination: true,
      engine: 'user',
      chooseBackend,
      ...options,
    },
  );
  return { agent, store, host, datapath, events, notified, written, conflicts };
}
