/** `tartan bugreport`: one archive with all that helps to find a fault of this host, without secrets. */
import { hostname } from 'node:os';
import { gzipSync } from 'node:zlib';
import type { EnvironmentFile } from '../../cli/environment-file.js';
import { version } from '../../cli/version.js';
import { messageOf } from '../../lib/errors.js';
import type { Call } from '../commands.js';
import { exitStatus, ToolError, type ExitStatus } from '../error.js';
import { withoutControls } from '../table.js';
import { partsOf, type Part, type PartContent } from './parts.js';
import { isSecret, SecretFilter } from './secrets.js';
import { archiveOf, type ArchiveFile } from './tar.js';

const partMs = 5_000;
const partBytes = 1024 * 1024;

interface Gathered {
  readonly name: string;
  /** Undefined for a part that failed. */
  readonly content: Buffer | undefined;
  /** Why it failed, or what is not in it. */
  readonly note: string | undefined;
}

/** @param output the file to make; by default one of its own in the working directory */
export async function writeBugReport(call: Call, output: string | undefined): Promise<ExitStatus> {
  const now = new Date();
  const stamp = now
    .toISOString()
    .replace(/[-:]/g, '')
    .replace(/\.\d+Z$/, 'Z');
  const host = hostname()
    .replace(/[^A-Za-z0-9-]+/g, '-')
    .slice(0, 40);
  const folder = `tartan-bugreport-${host}-${stamp}`;
  const path = output ?? `${folder}.tar.gz`;
  const { io, settings } = call;
  const environment = io.ports.readEnvironmentFile();
  const filter = new SecretFilter(await knownSecrets(call, environment));
  const reading = await io.ports.readStatus(settings.runDir);
  const parts = partsOf(call, reading.kind === 'status' ? reading.status : undefined, environment);
  const gathered = await Promise.all(parts.map(part => gather(part, filter)));
  const report = { name: 'report.txt', content: Buffer.from(reportText(gathered, filter, now)) };
  const files = [report, ...gathered.flatMap(({ name, content }) => (content ? [{ name, content }] : []))];
  const bytes = write(call, path, folder, files, now);
  const failed = gathered
    .filter(({ content }) => content === undefined)
    .map(({ name, note = '' }) => `${name}: ${note}`);
  const lines = [
    `wrote ${path}: ${files.length} files, ${bytes} bytes, for its owner alone (mode 0600)`,
    ...failed.map(line => `without ${line}`),
    `${filter.count} secrets were removed: passwords, tokens, keys, logins in URLs`,
    'before you send it: it has addresses, host names, routes and packet filter rules of this host, and the leases of all;',
    `look at it with: tar -xOf ${path} | less`,
  ];
  io.stdout(lines.map(line => `${withoutControls(line)}\n`).join(''));
  return exitStatus.ok;
}

function write(call: Call, path: string, folder: string, files: readonly ArchiveFile[], now: Date): number {
  const archive = archiveOf(
    files.map(({ name, content }) => ({ name: `${folder}/${name}`, content })),
    now.getTime(),
  );
  const bytes = path.endsWith('.tar') ? archive : gzipSync(archive);
  try {
    call.io.ports.evidence.writeNew(path, bytes);
  } catch (cause) {
    throw new ToolError(
      exitStatus.error,
      `${path} cannot be written (${messageOf(cause)})`,
      'name a new file in a directory that you may write with --output FILE',
      { cause },
    );
  }
  return bytes.length;
}

/** Never rejects. */
async function gather({ name, gather: read }: Part, filter: SecretFilter): Promise<Gathered> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${partMs / 1000} s`)), partMs);
  });
  try {
    return cleaned(name, await Promise.race([read(), late]), filter);
  } catch (error) {
    return { name, content: undefined, note: filter.clean(messageOf(error)).split('\n').join(' ').slice(0, 400) };
  } finally {
    clearTimeout(timer);
  }
}

function cleaned(name: string, content: PartContent, filter: SecretFilter): Gathered {
  const document = 'document' in content ? content.document : parsed(name, content.text);
  // Documents of JSON are cleaned by member, which a part of one cannot be.
  if (document !== undefined) return bounded(name, filter.cleanJson(document), 0);
  const { text, omitted } = firstLines('text' in content ? content.text : '');
  return bounded(name, filter.clean(text), omitted);
}

/** Lines at the start, so that no secret is cut in two and not known again. */
function firstLines(text: string): { readonly text: string; readonly omitted: number } {
  if (text.length <= partBytes) return { text, omitted: 0 };
  const end = text.lastIndexOf('\n', partBytes) + 1;
  return { text: text.slice(0, end), omitted: text.length - end };
}

function bounded(name: string, text: string, omitted: number): Gathered {
  const content = Buffer.from(text);
  const rest = omitted + Math.max(0, content.length - partBytes);
  return {
    name,
    content: content.subarray(0, partBytes),
    note: rest > 0 ? `cut: ${rest} bytes more` : undefined,
  };
}

function parsed(name: string, text: string): unknown {
  if (!name.endsWith('.json') || text.length > 4 * partBytes) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function reportText(gathered: readonly Gathered[], filter: SecretFilter, now: Date): string {
  const lines = gathered.map(({ name, content, note }) => {
    const what = content === undefined ? 'failed' : `${content.length} bytes`;
    return `${name}: ${what}${note === undefined ? '' : `, ${note}`}`;
  });
  return [
    `tartan ${version}, ${now.toISOString()}`,
    `${filter.count} secrets were removed, each stands as (removed)`,
    ...lines,
    '',
  ].join('\n');
}

/** The secrets that this host has for etcd, and in variables. */
async function knownSecrets(
  { io, settings }: Call,
  environment: EnvironmentFile | undefined,
): Promise<readonly string[]> {
  const variables = [...Object.entries(io.env), ...(environment?.variables ?? [])].flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  const passwordFiles = variables.filter(([name]) => name.endsWith('PASSWORD_FILE')).map(([, path]) => path);
  const connection = await settings.etcd().catch(() => undefined);
  return [
    ...variables.filter(([name, value]) => isSecret(name, value)).map(([, value]) => value),
    // ETCDCTL_USER has a login: name:password.
    ...variables.filter(([name]) => name.endsWith('USER')).flatMap(([, value]) => value.split(/^[^:]*:/)[1] ?? []),
    ...passwordFiles.flatMap(path => {
      const text = io.ports.evidence.readFile(path);
      return text.known && text.value !== undefined ? [text.value.trim()] : [];
    }),
    ...(connection?.options.password === undefined ? [] : [connection.options.password]),
  ];
}
