/**
 * Typed access to what was given for the flags: each getter parses one kind of value and its error names the flag or
 * the variable that the text came from. The text of a secret is never part of an error.
 */
import { posix } from 'node:path';
import { TartanError } from '../lib/errors.js';
import { readIpv4, shown, type Ipv4 } from '../model/ipv4.js';
import { findFlag, flags, type Flag, type FlagName } from '../cli/flags.js';
import { readGoBoolean, readGoInteger, type GivenFlags } from '../cli/flag-syntax.js';

export class FlagValues {
  readonly #given: GivenFlags;

  constructor(given: GivenFlags) {
    this.#given = given;
  }

  given(name: FlagName): boolean {
    return this.#given.has(name);
  }

  /** `--name` or `environment variable NAME`, for a message. */
  source(name: FlagName): string {
    return this.#given.get(name)?.source ?? `--${name}`;
  }

  /** The text as given, or the default; '' where neither is. */
  text(name: FlagName): string {
    return this.#given.get(name)?.texts.at(-1) ?? flagOf(name).fallback;
  }

  /** Without empty ones: `--iface=` means the default to flannel. */
  list(name: FlagName): readonly string[] {
    return (this.#given.get(name)?.texts ?? []).filter(text => text !== '');
  }

  boolean(name: FlagName): boolean {
    const text = this.text(name);
    const value = readGoBoolean(text);
    if (value === undefined) throw this.refusal(name, text, 'true or false');
    return value;
  }

  integer(name: FlagName): number {
    const text = this.text(name);
    const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = flagOf(name);
    const value = readGoInteger(text);
    if (value === undefined || value < min || value > max)
      throw this.refusal(name, text, `a whole number from ${min} to ${max}`);
    return value;
  }

  /** undefined when empty and without a default: unit files write `--etcd-cafile=${CA}` with CA unset */
  path(name: FlagName): string | undefined {
    const text = this.text(name);
    if (text === '' && flagOf(name).fallback === '') return undefined;
    if (!posix.isAbsolute(text) || /\p{Cc}/u.test(text))
      throw this.refusal(name, text, 'an absolute path such as /run/tartan');
    return posix.normalize(text).replace(/(?<=.)\/$/, '');
  }

  ipv4(name: FlagName): Ipv4 | undefined {
    const text = this.text(name);
    if (text === '') return undefined;
    const address = readIpv4(text);
    if (address === undefined) throw this.refusal(name, text, 'an IPv4 address such as 192.0.2.1');
    return address;
  }

  refusal(name: FlagName, text: string, expected: string): TartanError {
    const value = flagOf(name).kind === 'secret' ? 'the value' : text === '' ? 'an empty value' : `'${shown(text)}'`;
    return new TartanError('USAGE', `${this.source(name)}: ${value} is not usable, expected ${expected}`);
  }

  /**
   * Parses everything given, used or not, so that a bad value is never silently dropped; refuses what this version
   * cannot do.
   * @returns a note for each flag that has no effect
   */
  review(): readonly string[] {
    const notes: string[] = [];
    for (const flag of flags) {
      if (!this.given(flag.name)) continue;
      if (flag.kind === 'boolean') this.boolean(flag.name);
      if (flag.kind === 'integer') this.integer(flag.name);
      if (flag.disposition.kind === 'harmless')
        notes.push(`${this.source(flag.name)} has no effect: ${flag.disposition.why}`);
      if (flag.disposition.kind === 'later' && this.#asksForSomething(flag))
        throw new TartanError('USAGE', `${this.source(flag.name)} is not supported: ${flag.disposition.missing}`);
    }
    return notes;
  }

  #asksForSomething(flag: Flag & { readonly name: FlagName }): boolean {
    return flag.kind === 'boolean' ? this.boolean(flag.name) : this.text(flag.name) !== '';
  }
}

function flagOf(name: FlagName): Flag {
  const flag = findFlag(name);
  if (!flag) throw new TartanError('INVARIANT', `flag ${name} is not in the table`);
  return flag;
}
