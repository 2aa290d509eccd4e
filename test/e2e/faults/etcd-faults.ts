/** What can happen to the store: none of it may cost a packet, a subnet or a route. */
import { check, type Fault } from './fault.js';
import { countDescriptors } from './states.js';

/** One member or three. */
export const storeFaults: readonly Fault[] = [
  {
    name: 'etcd killed and started again',
    inject: async lab => {
      await lab.etcd.kill();
      await lab.stay(500);
    },
    heal: lab => lab.etcd.start(),
  },
  {
    name: 'etcd down for ten lifetimes of a lease',
    inject: async lab => {
      await lab.etcd.kill();
      await lab.stay(10 * lab.ttlMs);
    },
    heal: lab => lab.etcd.start(),
  },
  {
    name: 'etcd stopped for longer than a lease lives, so that all of them end at once',
    inject: async lab => {
      lab.etcd.signal('SIGSTOP');
      await lab.stay(1.5 * lab.ttlMs);
    },
    heal: async lab => lab.etcd.signal('SIGCONT'),
  },
  {
    name: 'etcd stopped and continued every half second',
    inject: async lab => {
      for (let round = 0; round < 4; round++) {
        lab.etcd.signal('SIGSTOP');
        await lab.stay(500);
        lab.etcd.signal('SIGCONT');
        await lab.stay(500);
      }
    },
  },
  {
    name: 'compaction and defragmentation over and over',
    inject: async lab => {
      for (let round = 0; round < 10; round++) {
        await lab.etcd.write({ '/coreos.com/network/other': String(round) });
        await lab.etcd.compact();
      }
    },
  },
  {
    name: 'etcd replaced by an empty one',
    inject: async lab => {
      const config = await lab.etcd.read('/coreos.com/network/config');
      await lab.etcd.wipe();
      await lab.etcd.start();
      await lab.etcd.write({ '/coreos.com/network/config': config?.value ?? '' });
    },
    convergeMs: 10_000,
  },
  {
    name: 'the watch is cut off while the history it would need is compacted',
    inject: async lab => {
      await lab.filter('output tcp dport { 2379, 2479, 2579 } drop');
      const other = '/coreos.com/network/subnets/10.5.250.0-24';
      await lab.etcd.write({ [other]: '{"PublicIP":"192.0.2.77"}' });
      await lab.etcd.write({ [other]: undefined });
      await lab.etcd.compact();
      await lab.stay(500);
    },
    heal: lab => lab.unfilter(),
    convergeMs: 20_000,
  },
];

/** Three members only. */
export const quorumFaults: readonly Fault[] = [
  {
    name: 'the leader killed',
    inject: async lab => {
      const leader = await lab.etcd.leader();
      await leader.kill();
      await lab.stay(lab.ttlMs);
    },
    heal: lab => lab.etcd.start(),
  },
  {
    name: 'the leader stopped for longer than a lease lives',
    inject: async lab => {
      const leader = await lab.etcd.leader();
      leader.signal('SIGSTOP');
      await lab.stay(2 * lab.ttlMs);
    },
    heal: async lab => lab.etcd.signal('SIGCONT'),
    convergeMs: 10_000,
  },
  {
    name: 'the quorum lost',
    inject: async lab => {
      await Promise.all(lab.etcd.members.slice(1).map(member => member.kill()));
      await lab.stay(1.5 * lab.ttlMs);
    },
    heal: lab => lab.etcd.start(),
    convergeMs: 10_000,
  },
];

/** Between one host and the store. */
export const partitionFaults: readonly Fault[] = [
  {
    name: 'a host silently cut off from etcd for ten lifetimes of its lease',
    inject: async lab => {
      const before = countDescriptors(lab.victim.daemon.pid);
      await lab.filter('output ip daddr 192.0.2.254 drop', 'input ip saddr 192.0.2.254 drop');
      await lab.stay(10 * lab.ttlMs);
      check(countDescriptors(lab.victim.daemon.pid) < before + 10, 'no descriptor left behind for each attempt');
    },
    heal: lab => lab.unfilter(),
    convergeMs: 10_000,
  },
  {
    name: 'a host that hears etcd and is not heard',
    inject: async lab => {
      await lab.filter('output ip daddr 192.0.2.254 drop');
      await lab.stay(0.8 * lab.ttlMs);
    },
    heal: lab => lab.unfilter(),
    convergeMs: 20_000,
  },
  {
    name: 'a host that is heard by etcd and hears nothing',
    inject: async lab => {
      await lab.filter('input ip saddr 192.0.2.254 drop');
      await lab.stay(0.8 * lab.ttlMs);
    },
    heal: lab => lab.unfilter(),
    convergeMs: 20_000,
  },
  {
    name: 'every connection to etcd reset',
    inject: async lab => {
      const before = countDescriptors(lab.victim.daemon.pid);
      await lab.filter('output ip daddr 192.0.2.254 tcp dport { 2379, 2479, 2579 } reject with tcp reset');
      await lab.stay(1.5 * lab.ttlMs);
      check(countDescriptors(lab.victim.daemon.pid) < before + 10, 'no descriptor left behind for each reset');
    },
    heal: lab => lab.unfilter(),
    convergeMs: 10_000,
  },
];
