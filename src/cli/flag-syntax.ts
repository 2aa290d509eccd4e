/**
 * Parses Go's `flag` syntax, which flannel's users know: `-name`, `--name`, `-name=value`, `-name value`; a boolean
 * takes a value only after `=`; parsing ends at the first positional or after `--`. Two differences are on purpose: a
 * positional and an unknown flag are errors. The environment supplies what the command line leaves out.
 */
import { TartanError } from '../lib/errors.js';
import { nearestWord } from '../lib/nearest-word.js';
import { shown } from '../model/ip.js';
import { environmentNames, findFlag, flags, type FlagName } from './flags.js';

/** The texts given for one flag, and their place: `--name` or `environment variable NAME`. */
export interface GivenFlag {
  readonly texts: readonly string[];
  readonly source: string;
}

export type GivenFlags = ReadonlyMap<FlagName, GivenFlag>;

export type CommandLine = { readonly kind: 'help' } | { readonly kind: 'flags'; readonly given: GivenFlags };

export type Environment = Readonly<Record<string, string | undefined>>;

/** @throws TartanError USAGE */
export function parseCommandLine(words: readonly string[]): CommandLine {
  const given = new Map<FlagName, GivenFlag>();
  let index = 0;
  let last: FlagName | undefined;
  for (; index < words.length; index++) {
    const word = words[index] ?? '';
    if (word.length < 2 || !word.startsWith('-')) break;
    if (word === '--') {
      index++;
      break;
    }
    const { name, value } = splitFlag(word);
    const flag = findFlag(name);
    if (!flag) {
      if (name === 'help' || name === 'h') return { kind: 'help' };
      throw new TartanError('USAGE', `unknown flag --${shownName(name)}${nearestFlag(name)}; --help lists all flags`);
    }
    const text = value ?? (flag.kind === 'boolean' ? 'true' : words[++index]);
    if (text === undefined) throw new TartanError('USAGE', `--${name} needs a value: --${name}=${flag.value}`);
    const earlier = flag.kind === 'list' ? (given.get(flag.name)?.texts ?? []) : [];
    given.set(flag.name, { texts: [...earlier, text], source: `--${name}` });
    last = flag.name;
  }
  refusePositional(words[index], last);
  return { kind: 'flags', given };
}

/** Adds the environment's values of flags that are not given yet; an empty variable counts as absent. */
export function withEnvironment(given: GivenFlags, env: Environment): GivenFlags {
  const merged = new Map(given);
  for (const flag of flags) {
    if (merged.has(flag.name)) continue;
    const variable = environmentNames(flag).find(name => env[name]);
    const text = variable && env[variable];
    if (text) merged.set(flag.name, { texts: [text], source: `environment variable ${variable}` });
  }
  return merged;
}

/** @returns undefined unless the text is one of Go's boolean words */
export function readGoBoolean(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  return ['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text) ? false : undefined;
}

const goInteger =
  /^([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[oO]?((?:_?[0-7])+)|0[bB]((?:_?[01])+)|(0|[1-9](?:_?[0-9])*))$/;

/** Reads a Go integer literal with an optional sign: 10, 0x1f, 0o17, 017, 0b11, 1_000. @returns undefined for others */
export function readGoInteger(text: string): number | undefined {
  const match = goInteger.exec(text);
  if (!match || text.length > 40) return undefined;
  const [, sign, hex, octal, binary, decimal] = match;
  const literal = hex ? `0x${hex}` : octal ? `0o${octal}` : binary ? `0b${binary}` : (decimal ?? '');
  const magnitude = Number(BigInt(literal.replaceAll('_', '')));
  return sign === '-' ? -magnitude : magnitude;
}

function splitFlag(word: string): { readonly name: string; readonly value: string | undefined } {
  const body = word.replace(/^--?/, '');
  const equals = body.indexOf('=', 1);
  const name = equals < 0 ? body : body.slice(0, equals);
  if (name === '' || name.startsWith('-') || name.startsWith('='))
    throw new TartanError('USAGE', `'${shownName(word)}' is not a flag; write --name or --name=value`);
  return { name, value: equals < 0 ? undefined : body.slice(equals + 1) };
}

/** Cuts a mistyped word behind its name: what follows may be half a secret, `--etcd-password:...`. */
function shownName(word: string): string {
  const name = /^[A-Za-z0-9_-]*/.exec(word)?.[0] ?? '';
  return shown(name === word ? name : `${name}...`);
}

function refusePositional(word: string | undefined, last: FlagName | undefined): void {
  if (word === undefined) return;
  const flag = last && findFlag(last);
  // The word may be the second half of an unquoted password with a space, which is as secret as the first.
  if (flag?.kind === 'secret')
    throw new TartanError(
      'USAGE',
      `an argument follows the value of --${flag.name}; put a value with spaces in quotes`,
    );
  const hint =
    flag?.kind === 'boolean' && readGoBoolean(word) !== undefined
      ? `a boolean takes its value after '=': --${flag.name}=${word}`
      : 'tartand takes flags only';
  throw new TartanError('USAGE', `unexpected argument '${shown(word)}'; ${hint}`);
}

/** Names the known flag that is most similar to a mistyped one, as the tail of a message. */
function nearestFlag(name: string): string {
  const nearest = nearestWord(
    name.replaceAll('_', '-'),
    flags.map(flag => flag.name),
  );
  return nearest === undefined ? '' : `, did you mean --${nearest}?`;
}
