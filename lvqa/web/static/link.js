// What a page shows, kept in its address, so that a link or a reload brings it back.

/** The values behind the # of the address. */
export function readLink() {
  return new URLSearchParams(location.hash.slice(1));
}

/** Put values into the address: {name: value, or [values]}; empty ones are left out. With `isStep` "back" returns here. */
export function writeLink(values, { isStep = false } = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") parameters.append(name, one);
    }
  }
  const hash = `#${parameters}`;
  if (hash === location.hash) return;
  if (isStep) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
}
