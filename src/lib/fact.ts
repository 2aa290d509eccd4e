/** A fact about the host, or the reason why it is unknown. An unknown fact never counts as a good one. */
export type Fact<T> = { readonly known: true; readonly value: T } | { readonly known: false; readonly why: string };

export function known<T>(value: T): Fact<T> {
  return { known: true, value };
}

export function unknown(why: string): Fact<never> {
  return { known: false, why };
}

/** @returns undefined when the fact is unknown */
export function factValue<T>(fact: Fact<T>): T | undefined {
  return fact.known ? fact.value : undefined;
}
