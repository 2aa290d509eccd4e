/**
 * `tartan docker-opts` replaces flannel's mk-docker-opts.sh, with its options, its output byte for byte and its exit
 * statuses. The environment file is parsed, never run, and nothing is written that a shell or systemd would read as
 * more than a value.
 */
import { existsSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { messageOf } from '../lib/errors.js';
import { factValue } from '../lib/fact.js';
import { readTextFile, writeFileAtomic } from '../lib/file.js';
import {
  formatPrefix,
  ipv4Number,
  maskNumber,
  nthPrefix,
  readIpv4,
  shown,
  unspecifiedIpv4,
  type Prefix,
} from '../model/ip.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';

/** The options as the script's getopts takes them. */
interface Request {
  readonly flannelFile: string;
  readonly dockerFile: string;
  readonly individual: boolean;
  readonly combined: boolean;
  readonly masquerade: boolean;
  readonly combinedName: string;
}

type Variables = Readonly<Record<string, string | undefined>>;

export interface DockerOptsIo {
  readonly env: Variables;
  readonly stderr: (text: string) => void;
}

const usage = `usage: tartan docker-opts [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-k COMBINED-KEY]
  -f FILE  subnet.env to read (default /run/flannel/subnet.env)
  -d FILE  file to write for Docker's unit (default /run/docker_opts.env)
  -i       a variable for each option: DOCKER_OPT_BIP, DOCKER_OPT_IPMASQ, DOCKER_OPT_MTU
  -c       one variable with all options; without -i and -c both are written
  -k NAME  name of that variable (default DOCKER_OPTS)
  -m       without --ip-masq
`;

/**
 * @param words the arguments after the command's name
 * @param routes text of /proc/net/route, '' where it cannot be read: the file is written all the same
 */
export async function writeDockerOpts(
  words: readonly string[],
  io: DockerOptsIo,
  routes: () => string = () => factValue(readTextFile('/proc/net/route')) ?? '',
): Promise<ExitStatus> {
  const request = readRequest(words);
  if (typeof request === 'string') {
    io.stderr(`${request}${usage}`);
    return exitStatus.error;
  }
  const variables = { ...io.env, ...readFlannelFile(request.flannelFile) };
  writeOutput(request.dockerFile, formatDockerOpts(request, variables));
  const subnet = readSubnet(variables['FLANNEL_SUBNET'] ?? '');
  if (subnet && isRoutedVia(routes(), subnet))
    throw new ToolError(
      exitStatus.error,
      `the routing table already leads to ${formatPrefix(subnet)} by a gateway`,
      `remove that route (ip route show ${formatPrefix(subnet)}); ${request.dockerFile} was written`,
    );
  return exitStatus.ok;
}

/** @returns what to print before the usage, '' when only the usage was asked for */
function readRequest(words: readonly string[]): Request | string {
  const flags = new Set<string>();
  const values = new Map([
    ['f', '/run/flannel/subnet.env'],
    ['d', '/run/docker_opts.env'],
    ['k', 'DOCKER_OPTS'],
  ]);
  for (let at = 0; /^-./s.test(words[at] ?? '') && words[at] !== '--'; at++) {
    const letters = (words[at] ?? '').slice(1);
    for (let index = 0; index < letters.length; index++) {
      const letter = letters[index] ?? '';
      if ('icm'.includes(letter)) flags.add(letter);
      else if (values.has(letter)) {
        const value = letters.slice(index + 1) || words[++at];
        if (value === undefined) return `-${letter} needs a value\n`;
        values.set(letter, value);
        break;
      } else return 'h?'.includes(letter) ? '' : `unknown option -${shown(letter)}\n`;
    }
  }
  const neither = !flags.has('i') && !flags.has('c');
  return {
    flannelFile: values.get('f') ?? '',
    dockerFile: values.get('d') ?? '',
    individual: neither || flags.has('i'),
    combined: neither || flags.has('c'),
    masquerade: !flags.has('m'),
    combinedName: readName(values.get('k') ?? ''),
  };
}

function readName(text: string): string {
  if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(text)) return text;
  const next = 'give letters, digits and _ only, such as DOCKER_NETWORK_OPTIONS';
  throw new ToolError(exitStatus.error, `-k '${shown(text)}' is no name of a variable`, next);
}

/** Reads the lines `NAME=value`, as subnet.env has them, with quotes, comments and `export` as others write them. */
function readFlannelFile(path: string): Variables {
  // The script does the same: without the file there are no options.
  if (!existsSync(path) || !statSync(path).isFile()) return {};
  const text = readTextFile(path);
  if (!text.known) {
    const next = 'let this user read it, or name another file with -f';
    throw new ToolError(exitStatus.error, `${path} cannot be read (${text.why})`, next);
  }
  const lines = (text.value ?? '').split('\n');
  const pairs = lines.flatMap((line, index) => {
    if (/^\s*(?:#.*)?$/.test(line)) return [];
    const assignment = /^\s*(?:export\s+)?([A-Za-z_]\w*)=(?:"([^"$`\\]*)"|'([^']*)'|([\w.:/,=@%+-]*))\s*(?:\s#.*)?$/;
    const [, name, double, single, bare] = assignment.exec(line) ?? [];
    if (name !== undefined) return [[name, double ?? single ?? bare ?? ''] as const];
    const next = 'write NAME=value on a line of its own; the file is read, not run as a script';
    throw new ToolError(exitStatus.error, `${path} line ${index + 1} ('${shown(line)}') sets no variable`, next);
  });
  return Object.fromEntries(pairs);
}

/** @throws ToolError for a value that a shell would read as more than a value, also in double quotes */
function formatDockerOpts(request: Request, variables: Variables): string {
  const options = new Map(
    Object.entries(variables).flatMap(([name, value]) =>
      /^[A-Za-z_]\w*$/.test(name) && name.includes('DOCKER_OPT_') ? [[name, value ?? ''] as const] : [],
    ),
  );
  const subnet = variables['FLANNEL_SUBNET'];
  const mtu = variables['FLANNEL_MTU'];
  if (subnet) options.set('DOCKER_OPT_BIP', `--bip=${subnet}`);
  if (mtu) options.set('DOCKER_OPT_MTU', `--mtu=${mtu}`);
  const masquerade = request.masquerade ? readMasquerade(variables['FLANNEL_IPMASQ'] ?? '') : undefined;
  if (masquerade !== undefined) options.set('DOCKER_OPT_IPMASQ', `--ip-masq=${!masquerade}`);
  const sorted = [...options].sort(([a], [b]) => (a < b ? -1 : 1));
  const { combinedName: name, individual } = request;
  const preset = options.get(name) ?? variables[name] ?? '';
  const all = sorted.reduce((text, [, value]) => `${text} ${value}`, preset === '' ? '' : `${preset} `);
  const lines = [...(individual ? sorted : []), ...(request.combined ? [[name, all] as const] : [])];
  return lines.map(([key, value]) => `${key}="${plain(key, value)}"\n`).join('');
}

/** Inverts the value: Docker masquerades where flannel does not. */
function readMasquerade(text: string): boolean | undefined {
  if (text === '') return undefined;
  if (text === 'true' || text === 'false') return text === 'true';
  throw new ToolError(exitStatus.error, `FLANNEL_IPMASQ is '${shown(text)}'`, 'make it true or false, or give -m');
}

function plain(name: string, value: string): string {
  if (!/["$`\\\p{Cc}]/u.test(value)) return value;
  const next = 'take quotes, $, backquotes, backslashes and control characters out of it';
  throw new ToolError(exitStatus.error, `${name} would be '${shown(value)}', which a shell would not keep`, next);
}

function writeOutput(path: string, text: string): void {
  try {
    // A redirection writes through links and into pipes (-d /dev/stdout), and so does this. A file is replaced at once.
    if (!existsSync(path)) writeFileAtomic(path, text, 0o644);
    else if (statSync(path).isFile()) writeFileAtomic(realpathSync(path), text, 0o644);
    else writeFileSync(path, text);
  } catch (cause) {
    const next = 'name another file with -d, or run it as root';
    throw new ToolError(exitStatus.error, `${path} cannot be written (${messageOf(cause)})`, next, { cause });
  }
}

/** Computes the subnet as the script does: one below the address, with the length unchanged. */
function readSubnet(text: string): Prefix | undefined {
  const [, host = '', length = ''] = /^([0-9.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const address = readIpv4(host);
  if (address === undefined || address === unspecifiedIpv4 || Number(length) > 32) return undefined;
  return { base: nthPrefix({ base: address, length: 32 }, -1).base, length: Number(length) };
}

/** @param table of proc_pid_net(5): words of network order printed as numbers of this machine */
export function isRoutedVia(table: string, subnet: Prefix): boolean {
  const viaGateway = 0x2;
  const numberOf = (hex: string): number => {
    const bytes = hex.match(/../g) ?? [];
    return Number.parseInt((endianness() === 'LE' ? bytes.reverse() : bytes).join(''), 16);
  };
  const [base, mask] = [ipv4Number(subnet.base), maskNumber(subnet.length)];
  return table
    .split('\n')
    .slice(1)
    .map(line => line.trim().split(/\s+/))
    .some(
      ([, destination = '', , flags = '', , , , length = '']) =>
        numberOf(destination) === base && numberOf(length) === mask && (Number.parseInt(flags, 16) & viaGateway) !== 0,
    );
}
