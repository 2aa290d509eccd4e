/** A value that only its parser can make. */
export type Brand<Base, Name extends string> = Base & { readonly __brand: Name };
