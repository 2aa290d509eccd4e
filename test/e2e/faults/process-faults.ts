/** What can happen to the two processes of a host. The packets do not depend on the daemon at all. */
import { isAlive } from '../../support/lab-host.js';
import { until } from '../../support/tools.js';
import { check, type Fault } from './fault.js';
import type { FaultLab } from './lab.js';

export const processFaults: readonly Fault[] = [
  ...(['SIGTERM', 'SIGKILL'] as const).map((signal): Fault => ({
    name: `${signal} of the daemon, and a new one`,
    inject: async lab => {
      await lab.victim.stopDaemon(signal);
      await lab.stay(200);
      await lab.restart();
    },
    heal: restarted,
  })),
  {
    name: 'the daemon killed at a random moment of its start',
    inject: async lab => {
      await lab.victim.stopDaemon();
      await killedStart(lab);
    },
    heal: restarted,
  },
  {
    name: 'the first daemon of a host killed at a random moment of its start',
    lostMax: Infinity,
    peersMayGo: true,
    inject: async lab => {
      await lab.victim.stopDaemon();
      const { status, stderr } = await lab.victim.tool('cleanup');
      check(status === 0, `tartan cleanup to work, not: ${stderr}`);
      await killedStart(lab);
    },
    heal: restarted,
  },
  {
    name: 'the daemon stopped for half a lifetime of its lease',
    inject: async lab => {
      lab.victim.daemon.signal('SIGSTOP');
      await lab.stay(lab.ttlMs / 2);
    },
    heal: async lab => lab.victim.daemon.signal('SIGCONT'),
  },
  {
    name: 'the data process killed',
    // What was sent while there was none, and what lay in its sockets.
    lostMax: 1000,
    inject: async lab => {
      const pid = await lab.victim.datapathPid();
      process.kill(pid, 'SIGKILL');
      await until('the data process is gone', () => !isAlive(pid));
    },
  },
];

/** As long as a start takes on a slow machine. */
const startMs = 1500;

async function killedStart(lab: FaultLab): Promise<void> {
  lab.victim.startDaemon(lab.flags);
  await lab.stay(lab.random() * startMs);
  await lab.victim.stopDaemon('SIGKILL');
}

async function restarted(lab: FaultLab): Promise<void> {
  if (!lab.victim.daemon.running) await lab.restart();
}
