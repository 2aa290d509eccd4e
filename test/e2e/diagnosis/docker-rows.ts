/** D22 and D24 to D29: Docker and the rules beside it. */
import { rmSync, writeFileSync } from 'node:fs';
import type { Lab } from '../../support/lab.js';
import { run } from '../../support/tools.js';
import type { DiagnosisRow } from './row.js';

const ruleOf = (lab: Lab): readonly string[] => [
  'POSTROUTING',
  '-s',
  lab.node('a').subnet,
  '!',
  '-o',
  'docker0',
  '-j',
  'MASQUERADE',
];

export const dockerRows: readonly DiagnosisRow[] = [
  {
    id: 'D22',
    what: 'MTU of the network card changed',
    on: 'a',
    async inject(lab) {
      const a = lab.node('a');
      await a.run('ip', 'link', 'set', 'eth0', 'mtu', '1400');
      return () => a.run('ip', 'link', 'set', 'eth0', 'mtu', '1500');
    },
    doctor: ['docker0-mtu', /MTU 1464.*restart docker/],
  },
  {
    id: 'D24',
    what: 'docker0 on another subnet',
    on: 'a',
    async inject(lab) {
      const a = lab.node('a');
      const own = `${a.subnet.replace('.0/', '.1/')}`;
      await a.run('ip', 'address', 'add', '172.17.0.1/16', 'dev', 'docker0');
      await a.run('ip', 'address', 'del', own, 'dev', 'docker0');
      return async () => {
        await a.run('ip', 'address', 'del', '172.17.0.1/16', 'dev', 'docker0');
        await a.run('ip', 'address', 'add', own, 'dev', 'docker0');
      };
    },
    doctor: ['docker0-address', /docker0 has 172\.17\.0\.1\/16.*restart docker/],
    isQuick: true,
  },
  {
    id: 'D25',
    what: 'docker0 with another MTU',
    on: 'a',
    async inject(lab) {
      const a = lab.node('a');
      await a.run('ip', 'link', 'set', 'docker0', 'mtu', '1300');
      return () => a.run('ip', 'link', 'set', 'docker0', 'mtu', '1464');
    },
    doctor: ['docker0-mtu', /docker0 has MTU 1300.*ip link set docker0 mtu 1464/],
  },
  {
    id: 'D26',
    what: 'docker0 masqueraded',
    on: 'a',
    async inject(lab) {
      const a = lab.node('a');
      await a.run('iptables', '-t', 'nat', '-A', ...ruleOf(lab));
      return () => a.run('iptables', '-t', 'nat', '-D', ...ruleOf(lab));
    },
    doctor: ['docker0-masquerade', /masquerades.*remove the rule/],
  },
  {
    id: 'D27',
    what: 'a daemon.json that fights the flags',
    on: 'a',
    status: /mtu/,
    async inject(lab) {
      const path = `${lab.spaces.directory}/a/daemon.json`;
      await lab.node('a').stopDaemon();
      writeFileSync(path, '{"mtu": 1400}\n');
      await lab.node('a').startDaemon({ 'docker-daemon-json': path }).waitForEvent('daemon.ready');
      return async () => {
        await lab.node('a').stopDaemon();
        rmSync(path);
        await lab.node('a').startDaemon().waitForEvent('daemon.ready');
      };
    },
    doctor: ['docker-problem', /mtu.*tartan docker verify/],
  },
  {
    id: 'D28',
    what: 'FORWARD drops before our rules',
    on: 'a',
    isQuick: true,
    async inject(lab) {
      const a = lab.node('a');
      await a.run('iptables', '-I', 'FORWARD', '-i', 'tartan0', '-j', 'DROP');
      return () => a.run('iptables', '-D', 'FORWARD', '-i', 'tartan0', '-j', 'DROP');
    },
    doctor: ['forward-dropped-by-rule', /FORWARD: its rule '-i tartan0 -j DROP' drops.*firewall.*-j ACCEPT/],
  },
  {
    id: 'D29',
    what: 'a rejecting rule of nftables elsewhere',
    on: 'a',
    status: /rule_conflict/,
    async inject(lab) {
      const inside = lab.spaces.inside('a', ['nft', '-f', '-']);
      const text =
        'table inet fault {\nchain c {\ntype filter hook forward priority 10;\niifname "tartan0" reject\n}\n}\n';
      await run(inside, { input: text });
      return () => run(inside, { input: 'delete table inet fault\n' });
    },
    doctor: ['rule-conflict', /iifname "tartan0" reject.*accept them/],
  },
];
