/**
 * Two agents of two networks in one process, over one HostNetwork of the kernel: `default` with the udp backend and the
 * data process, `blue` with a backend that needs none. Both leases and one peer each are in a store in memory. One JSON
 * line `{"network","changes","conflicts"}` on standard output for each pass, or `{"network","error"}`. Ends with its
 * input, and its data processes with it.
 *
 *   node host-child-agents.js <directory>
 */
import { join } from 'node:path';
import { openStatusServer } from '../../src/admin/status-server.js';
import { Agent } from '../../src/agent/agent.js';
import { LocalNode, loadNodeId, readBootId } from '../../src/agent/local-node.js';
import { snapshot } from '../../src/agent/snapshot.js';
import { StateFile } from '../../src/agent/state-file.js';
import { chooseBackend } from '../../src/backend/all.js';
import { directoriesOf, openDirectories } from '../../src/daemon/directories.js';
import { openDatapath } from '../../src/datapath/tun/tun-engine.js';
import type { HostNetwork } from '../../src/host/host.js';
import { openKernelHost } from '../../src/host/kernel-host.js';
import { bootClock } from '../../src/lib/clock.js';
import { messageOf } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from './memory-kv.js';
import { put } from './store.js';
import { vxlanBackend } from './vxlan-backend.js';

const [directory = '.'] = process.argv.slice(2);
const host = { runDir: join(directory, 'run'), stateDir: join(directory, 'state') };
const networks = ['default', 'blue'] as const;
const kernel = openKernelHost({ log: silentLog, networks });
const kv = new MemoryKv(bootClock);
const address = parseIpv4('192.0.2.1');
const underlay = { publicIp: address, interface: { name: 'u0', address, mtu: 1500 } };
const ending = new AbortController();

/** The kernel's, which tells each pass. */
function told(network: string): HostNetwork {
  const say = (what: object): void => console.log(JSON.stringify({ network, ...what }));
  const apply: HostNetwork['apply'] = async (...given) => {
    try {
      const state = await kernel.apply(...given);
      say(state);
      return state;
    } catch (error) {
      if (!ending.signal.aborted) say({ error: messageOf(error) });
      throw error;
    }
  };
  return {
    apply,
    cleanup: (...given) => kernel.cleanup(...given),
    interfaces: () => kernel.interfaces(),
    routeTo: to => kernel.routeTo(to),
    deadNeighbour: to => kernel.deadNeighbour(to),
    defaultRoute: () => kernel.defaultRoute(),
    onChange: listener => kernel.onChange(listener),
    get hearsAll() {
      return kernel.hearsAll;
    },
    close: async () => {},
  };
}

async function start(network: (typeof networks)[number], number: number): Promise<() => Promise<void>> {
  const { runDir, stateDir } = directoriesOf(network, host);
  openDirectories({ runDir, stateDir });
  const isBlue = network === 'blue';
  const document = { Network: `10.${number}.0.0/16`, ...(isBlue && { Backend: { Type: 'vxlan' } }) };
  await put(kv, `/${network}/config`, JSON.stringify(document));
  await put(kv, `/${network}/subnets/10.${number}.200.0-24`, '{"PublicIP":"192.0.2.2"}');
  const datapath = await openDatapath({ runDir, device: isBlue ? 'tartan1' : 'tartan0', log: silentLog });
  const agent = new Agent(
    {
      store: openLeaseStore(kv, { prefix: `/${network}`, log: silentLog, clock: bootClock }),
      host: told(network),
      openIcmp: () => ({ ask: () => false, close: () => {} }),
      underlay: { choose: async () => underlay, check: () => {}, refresh: async () => {}, current: async of => of },
      node: new LocalNode({ id: loadNodeId(host.stateDir), bootId: readBootId() }, underlay),
      datapath,
      docker: {
        previousSubnet: () => undefined,
        isChangedByOthers: () => false,
        write: async () => ({ written: [], conflicts: [], needsForwarding: false }),
      },
      state: new StateFile(stateDir),
      clock: bootClock,
      wallNow: Date.now,
      log: silentLog,
      notify: () => {},
    },
    {
      networkName: network,
      ttlSeconds: 60,
      resyncMs: 300,
      peerHoldMs: 60_000,
      onLost: 'exit',
      ipMasquerade: 'on',
      forwardRules: true,
      subnetFile: '/nonexistent',
      dockerEnvFile: '/nonexistent',
      docker: { subnetLength: 0, pools: false, config: 'env', daemonJsonFile: '/nonexistent' },
      checkSource: true,
      checkDestination: true,
      engine: 'user',
      chooseBackend: isBlue ? vxlanBackend : chooseBackend,
    },
  );
  await openStatusServer({ runDir, status: () => snapshot(agent, 'test'), log: silentLog });
  const running = agent.run(ending.signal).catch((error: unknown) => {
    if (!ending.signal.aborted) console.log(JSON.stringify({ network, error: messageOf(error) }));
  });
  return async () => {
    await running;
    await datapath.stop();
  };
}

const stops = [await start('default', 5), await start('blue', 6)];
for await (const _ of process.stdin);
ending.abort(new Error('the input ended'));
await Promise.all(stops.map(stop => stop()));
process.exit(0);
