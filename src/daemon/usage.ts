/** Formats `tartand --help` from the table of flags. */
import { environmentNames, flags, type Flag } from '../cli/flags.js';

const groups: readonly { readonly title: string; readonly has: (flag: Flag) => boolean }[] = [
  { title: 'Flags:', has: flag => flag.disposition.kind === 'works' },
  {
    title: "Flags of flannel's that are accepted and have no effect:",
    has: flag => flag.disposition.kind === 'harmless',
  },
  { title: "Flags of flannel's that are refused in this version:", has: flag => flag.disposition.kind === 'later' },
];

export function daemonUsage(): string {
  const sections = groups.map(group => [group.title, ...flags.filter(group.has).map(formatFlag)].join('\n'));
  return (
    [
      'Usage: tartand [--flag=value ...]',
      'The overlay network daemon: leases a subnet from etcd and carries container traffic to the other hosts.',
      ...sections,
      `Each flag but --version can be given as an environment variable too, for example ${exampleVariables()}.\n` +
        'A flag wins over TARTAN_*, which wins over FLANNELD_*; an empty variable counts as absent.',
      'Exit status: 0 ended as asked, 64 usage, 70 broken invariant, 73 another live host has this identity,\n' +
        '75 lease lost, 77 permission missing, 78 unusable configuration file.',
    ].join('\n\n') + '\n'
  );
}

function formatFlag(flag: Flag): string {
  const value = flag.kind === 'boolean' ? '' : ` ${flag.value}`;
  const fallback = flag.fallback === '' || flag.fallback === 'false' ? '' : ` (default ${flag.fallback})`;
  const why = flag.disposition.kind === 'works' ? '' : `\n        ${reason(flag)}`;
  return `  --${flag.name}${value}\n        ${flag.help}${fallback}${why}`;
}

function reason(flag: Flag): string {
  if (flag.disposition.kind === 'harmless') return flag.disposition.why;
  return flag.disposition.kind === 'later' ? flag.disposition.missing : '';
}

function exampleVariables(): string {
  const example = flags.find(flag => flag.name === 'etcd-endpoints');
  return example ? environmentNames(example).join(' or ') : '';
}
