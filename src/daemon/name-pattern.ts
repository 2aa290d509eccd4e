/** A regular expression in Go's syntax (RE2), as flannel takes it for names and addresses of interfaces. */
import { RE2JS } from 're2js';

export class NamePattern {
  readonly source: string;
  readonly #compiled: RE2JS;

  /** @throws Error that names the part that is no such syntax */
  constructor(source: string) {
    this.source = source;
    this.#compiled = RE2JS.compile(source);
  }

  test(text: string): boolean {
    return this.#compiled.matcher(text).find();
  }
}
