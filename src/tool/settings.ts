/**
 * Finds the tool's settings for etcd and for the daemon: the option, else TARTAN_*, else FLANNELD_*, else ETCDCTL_* (as
 * etcdctl reads them), else what the running daemon has, else the daemon's environment file, else the default. A password
 * never comes from an option, only from a file or the environment.
 */
import { Option, type Command } from 'commander';
import { TartanError } from '../lib/errors.js';
import { shown } from '../model/ip.js';
import { nodeIdPattern } from '../model/node.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { flagTextsOf, type DaemonSettings } from '../cli/daemon-settings.js';
import type { EnvironmentFile } from '../cli/environment-file.js';
import { parseEtcdOptions, type EtcdOptionTexts, type SourcedText } from '../cli/etcd-options.js';
import { resolvePath } from '../cli/paths.js';
import { environmentNames, findFlag, type FlagName } from '../cli/flags.js';
import { readGoBoolean, type Environment } from '../cli/flag-syntax.js';

/** Where `tartan web` offers its page. */
export const defaultWebListen = '127.0.0.1:8286';

/** Options by camel-case name, as commander returns them. */
export type OptionValues = Readonly<Record<string, unknown>>;

/** What says how etcd is reached, beside its endpoints. */
export const etcdAccessFlags = [
  'etcd-prefix',
  'etcd-cafile',
  'etcd-certfile',
  'etcd-keyfile',
  'etcd-username',
  'etcd-password-file',
  'insecure-etcd',
] as const satisfies readonly FlagName[];

const etcdFlags = ['etcd-endpoints', ...etcdAccessFlags] as const;

/** These names differ from the flags': etcdctl(1). */
const etcdctlNames: Readonly<Partial<Record<FlagName, string>>> = {
  'etcd-endpoints': 'ETCDCTL_ENDPOINTS',
  'etcd-cafile': 'ETCDCTL_CACERT',
  'etcd-certfile': 'ETCDCTL_CERT',
  'etcd-keyfile': 'ETCDCTL_KEY',
};

const defaultEndpoint = 'http://127.0.0.1:2379';

/** Adds the options for etcd, which stand in the help of the program only: few calls need them. */
export function addEtcdOptions(command: Command): Command {
  for (const name of etcdFlags) command.addOption(optionOf(name).hideHelp());
  return command.addHelpText('after', '\nThe options for etcd are listed by tartan --help.');
}

/** Lines of help, aligned. */
export function etcdOptionLines(): readonly string[] {
  const options = etcdFlags.map(optionOf);
  const width = Math.max(...options.map(({ flags }) => flags.length));
  return options.map(({ flags, description }) => `  ${flags.padEnd(width)}  ${description}`);
}

/** Adds the daemon's flag as an option of the tool, with the same name and the same variables. */
export function addFlag(command: Command, name: FlagName): Command {
  return command.addOption(optionOf(name));
}

function optionOf(name: FlagName): Option {
  const flag = findFlag(name);
  const value = flag?.kind === 'boolean' ? '' : ` <${flag?.value.toLowerCase()}>`;
  const fallback = name === 'etcd-endpoints' ? defaultEndpoint : flag?.fallback;
  const shownFallback = fallback && fallback !== 'false' ? ` (default ${fallback})` : '';
  return new Option(`--${name}${value}`, `${flag?.help ?? ''}${shownFallback}`);
}

/** The connection to etcd, and which place named its endpoints. */
export interface EtcdPlace {
  readonly options: EtcdOptions;
  readonly source: string;
}

/** Where settings are that the operator did not give. */
export interface SettingsPlaces {
  /** Asks the daemon whose run directory this is; undefined where none answers, or an older one. */
  readSettings(runDir: string): Promise<DaemonSettings | undefined>;
  readEnvironmentFile(): EnvironmentFile | undefined;
}

type LoginTexts = Pick<EtcdOptionTexts, 'username' | 'password' | 'passwordFile'>;

const noTexts: ReadonlyMap<FlagName, string> = new Map();

export class ToolSettings {
  readonly #values: OptionValues;
  readonly #env: Environment;
  readonly #places: SettingsPlaces;
  /** undefined until it is needed. */
  #file: EnvironmentFile | undefined | 'absent';

  constructor(values: OptionValues, env: Environment, places: SettingsPlaces) {
    this.#values = values;
    this.#env = env;
    this.#places = places;
  }

  get runDir(): string {
    return this.#path('run-dir') ?? findFlag('run-dir')?.fallback ?? '';
  }

  get stateDir(): string {
    return this.#path('state-dir') ?? findFlag('state-dir')?.fallback ?? '';
  }

  get dockerEnvFile(): string {
    return this.#path('docker-env-file') ?? `${this.runDir}/docker.env`;
  }

  get subnetFile(): string {
    return this.#path('subnet-file') ?? findFlag('subnet-file')?.fallback ?? '';
  }

  /** The tool's own option, as given. */
  get dockerHost(): string | undefined {
    const given = this.#values['dockerHost'];
    return typeof given === 'string' ? given : undefined;
  }

  /** The node id as given; the daemon and its state directory are not asked. */
  get nodeId(): string | undefined {
    const given = this.#find('node-id');
    if (given && !nodeIdPattern.test(given.text))
      throw new TartanError('USAGE', `${given.source}: '${shown(given.text)}' is not a node id such as a UUID`);
    return given?.text;
  }

  /** @throws TartanError USAGE, CONFIG_INVALID */
  async etcd(): Promise<EtcdPlace> {
    const settings = await this.#places.readSettings(this.runDir);
    const daemon = settings ? flagTextsOf(settings) : noTexts;
    const [caFile, certFile, keyFile] = [
      this.#path('etcd-cafile', daemon),
      this.#path('etcd-certfile', daemon),
      this.#path('etcd-keyfile', daemon),
    ];
    const endpoints = this.#find('etcd-endpoints', daemon) ?? { text: defaultEndpoint, source: this.#defaultSource() };
    const { options } = parseEtcdOptions({
      endpoints,
      prefix: this.#find('etcd-prefix', daemon) ?? {
        text: findFlag('etcd-prefix')?.fallback ?? '',
        source: '--etcd-prefix',
      },
      caFile,
      certFile,
      keyFile,
      ...this.#login(daemon),
      insecureEtcd: this.#boolean('insecure-etcd', daemon),
    });
    return { options, source: endpoints.source };
  }

  #defaultSource(): string {
    const file = this.#environmentFile();
    const unread = file?.problem === undefined ? '' : `; ${file.path} cannot be read: ${file.problem}`;
    return `the default, because no daemon answers here and no option names another${unread}`;
  }

  /**
   * What the operator gave is a login of its own, and where the operator names endpoints, they get no password that was
   * meant for the daemon's etcd.
   */
  #login(daemon: ReadonlyMap<FlagName, string>): LoginTexts {
    const given = this.#givenLogin();
    if (given.username || given.password || given.passwordFile || this.#given('etcd-endpoints')) return given;
    const username = this.#find('etcd-username', daemon)?.text ?? '';
    const passwordFile = this.#find('etcd-password-file', daemon);
    return { username, password: passwordFile ? '' : (this.#fromFile('etcd-password')?.text ?? ''), passwordFile };
  }

  /** The first place that has a password wins: a shell's ETCDCTL_PASSWORD does not replace a file that was named. */
  #givenLogin(): LoginTexts {
    const user = this.#given('etcd-username');
    const [ctlUser = '', ctlPassword] = splitOnce(this.#env['ETCDCTL_USER'] ?? '', ':');
    const username = user?.text ?? ctlUser;
    const file = this.#given('etcd-password-file');
    const text = this.#fromEnvironment('etcd-password')?.text;
    const fileFirst = file !== undefined && (text === undefined || file.source.startsWith('--'));
    if (fileFirst) return { username, password: '', passwordFile: file };
    const etcdctl = this.#env['ETCDCTL_PASSWORD'] || (user ? '' : (ctlPassword ?? ''));
    return { username, password: text ?? etcdctl, passwordFile: file };
  }

  #path(name: FlagName, daemon = noTexts): string | undefined {
    const given = this.#find(name, daemon);
    if (given === undefined) return undefined;
    const path = resolvePath(given.text);
    if (path === undefined) throw new TartanError('USAGE', `${given.source}: '${shown(given.text)}' is not a path`);
    return path;
  }

  #boolean(name: FlagName, daemon: ReadonlyMap<FlagName, string>): boolean {
    const given = this.#find(name, daemon);
    if (!given) return false;
    const value = readGoBoolean(given.text);
    if (value === undefined)
      throw new TartanError('USAGE', `${given.source}: '${shown(given.text)}' is neither true nor false`);
    return value;
  }

  /** @param daemon what the running daemon has */
  #find(name: FlagName, daemon = noTexts): SourcedText | undefined {
    const given = this.#given(name);
    if (given) return given;
    const text = daemon.get(name);
    return text === undefined ? this.#fromFile(name) : { text, source: `the running tartand (--${name})` };
  }

  /** What the operator gave. */
  #given(name: FlagName): SourcedText | undefined {
    const option = this.#values[name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
    if (option === true) return { text: 'true', source: `--${name}` };
    if (typeof option === 'string' && option !== '') return { text: option, source: `--${name}` };
    return this.#fromEnvironment(name);
  }

  #fromFile(name: FlagName): SourcedText | undefined {
    const file = this.#environmentFile();
    const flag = findFlag(name);
    const variable = flag && environmentNames(flag).find(candidate => file?.variables.get(candidate));
    const text = variable && file?.variables.get(variable);
    return text ? { text, source: `${variable} in ${file?.origins?.get(variable) ?? file?.path ?? ''}` } : undefined;
  }

  #environmentFile(): EnvironmentFile | undefined {
    this.#file ??= this.#places.readEnvironmentFile() ?? 'absent';
    return this.#file === 'absent' ? undefined : this.#file;
  }

  #fromEnvironment(name: FlagName): SourcedText | undefined {
    const flag = findFlag(name);
    const etcdctl = etcdctlNames[name];
    const names = [...(flag ? environmentNames(flag) : []), ...(etcdctl === undefined ? [] : [etcdctl])];
    const variable = names.find(candidate => this.#env[candidate]);
    const text = variable && this.#env[variable];
    return text ? { text, source: `environment variable ${variable}` } : undefined;
  }
}

function splitOnce(text: string, separator: string): readonly [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
