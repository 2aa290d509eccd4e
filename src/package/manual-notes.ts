/** What the man pages say beside the tables. */
import { exitNotes } from '../tool/help.js';
import { etcdOptionLines } from '../tool/settings.js';
import { environmentNames, findFlag } from '../cli/flags.js';

interface Note {
  readonly title: string;
  readonly text: string;
}

const files: Note = {
  title: 'FILES',
  text: [
    '/etc/default/tartand: settings of the daemon as TARTAN_* variables, read after those of /etc/tartan/join.env.',
    '/run/tartan/docker.env, /run/flannel/subnet.env: what Docker, and what readers of flannel get.',
    '/var/lib/tartan: the identity of this host, its lease as it was last known, and its events.',
    '/usr/share/tartan: examples of the network document, alerts, a dashboard, a role for etcd.',
    '/usr/share/doc/tartan/examples: a cloud-config, an Ignition file, a unit for every machine of a cluster, a compose file.',
  ].join('\n\n'),
};

export function toolNotes(): readonly Note[] {
  return [
    {
      title: 'OPTIONS FOR ETCD',
      text: etcdOptionLines()
        .map(line => line.trim().replace(/ {2,}/, ': '))
        .join('\n\n'),
    },
    { title: 'EXIT STATUS AND ENVIRONMENT', text: exitNotes },
    files,
    { title: 'SEE ALSO', text: 'tartand(8), tartan(1), subnet-lease(1), dockerd(8), etcdctl(1)' },
  ];
}

export function daemonNotes(): readonly Note[] {
  const flag = findFlag('etcd-endpoints');
  const names = flag === undefined ? [] : environmentNames(flag);
  return [
    {
      title: 'ENVIRONMENT',
      text: `Each flag but --version can be a variable, for example ${names.join(' or ')}. A flag wins over TARTAN_*, which wins over FLANNELD_*.`,
    },
    {
      title: 'EXIT STATUS',
      text:
        '0 ended as asked, 1 no usable interface, 64 usage, 70 broken invariant, 73 another live host has this identity, ' +
        '75 lease lost, 77 permission missing, 78 unusable configuration.',
    },
    files,
    { title: 'SEE ALSO', text: 'tartan(1), subnet-lease(1), dockerd(8), systemd(1)' },
  ];
}
