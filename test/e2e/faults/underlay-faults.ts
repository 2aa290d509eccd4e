/** What can happen to links, routes and rules of a host: restored in time, and what is not ours stays. */
import { run, until } from '../../support/tools.js';
import { check, type Fault } from './fault.js';
import type { FaultLab } from './lab.js';

const network = '10.5.0.0/16';

export const underlayFaults: readonly Fault[] = [
  {
    name: 'the cable pulled three times',
    // The kernel tells of a carrier once a second at most (its linkwatch).
    lostMax: 3 * (200 + 1000),
    inject: async lab => {
      const port = `p${lab.victim.letter}`;
      for (let round = 0; round < 3; round++) {
        await onSwitch(lab, 'link', 'set', port, 'down');
        await lab.stay(200);
        await onSwitch(lab, 'link', 'set', port, 'up');
        await lab.stay(200);
      }
    },
    heal: async lab => {
      await onSwitch(lab, 'link', 'set', `p${lab.victim.letter}`, 'up');
      // A connection that lost packets sends them again at its own pace: till then a lease that is held may become unknown.
      const healedMs = performance.now();
      const heard = async (): Promise<boolean> =>
        ((await lab.victim.status()).store?.answeredSeconds ?? Infinity) + 1 < (performance.now() - healedMs) / 1000;
      await until('etcd is heard again', heard, 5000);
    },
  },
  {
    name: 'the tunnel device set down',
    lostMax: 1500,
    inject: async lab => {
      await lab.victim.run('ip', 'link', 'set', 'tartan0', 'down');
      await until(
        'up again',
        async () => /[<,]UP[,>]/.test(await lab.victim.run('ip', 'link', 'show', 'tartan0')),
        1500,
      );
    },
    heal: restoredRoute,
  },
  {
    name: 'the tunnel device deleted',
    lostMax: 2500,
    inject: async lab => {
      await lab.victim.run('ip', 'link', 'delete', 'tartan0');
      await until('made again', async () => lab.victim.run('ip', 'link', 'show', 'tartan0').then(() => true), 2500);
    },
    heal: restoredRoute,
  },
  {
    name: 'our route deleted',
    lostMax: 1000,
    inject: async lab => {
      await lab.victim.run('ip', 'route', 'delete', network, 'dev', 'tartan0');
    },
    heal: restoredRoute,
  },
  {
    name: 'a foreign route to our network',
    inject: async lab => {
      const route = [network, 'via', '192.0.2.253', 'metric', '9000', 'proto', 'static'];
      await lab.victim.run('ip', 'route', 'add', ...route);
      await lab.stay(1500);
      const after = await lab.victim.run('ip', 'route', 'show', network);
      check(after.includes('via 192.0.2.253'), `the foreign route still there, not\n${after}`);
      await lab.victim.run('ip', 'route', 'delete', ...route);
    },
  },
  {
    name: 'every firewall rule flushed',
    inject: async lab => {
      const before = await rulesOf(lab);
      await lab.victim.run('nft', 'flush', 'ruleset');
      await until('the rules are back', async () => (await rulesOf(lab)) === before, 5000);
    },
  },
];

async function onSwitch(lab: FaultLab, ...words: readonly string[]): Promise<void> {
  await run(lab.lab.spaces.inside('u', ['ip', ...words]));
}

async function restoredRoute(lab: FaultLab): Promise<void> {
  await until(
    'our route is there',
    async () => (await lab.victim.run('ip', 'route', 'show', network)).includes('tartan0'),
    2000,
  );
}

async function rulesOf(lab: FaultLab): Promise<string> {
  const text = await lab.victim.run('iptables-save');
  return text.replace(/^#.*$/gm, '').replace(/\[\d+:\d+\]/g, '');
}
