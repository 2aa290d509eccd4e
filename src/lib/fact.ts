/** A fact about the host, or why it could not be had: what is not known is never taken for all right. */
export type Fact<T> = { readonly known: true; readonly value: T } | { readonly known: false; readonly why: string };

export function known<T>(value: T): Fact<T> {
  return { known: true, value };
}

export function unknown(why: string): Fact<never> {
  return { known: false, why };
}

/** undefined when it is not known. */
export function factValue<T>(fact: Fact<T>): T | undefined {
  return fact.known ? fact.value : undefined;
}
