// witnesses tell what they know when something has been waited for in vain.
export const witnesses = []

// until asks again and again until the answer is neither false nor empty, and
// gives it back. It fails with the name of what it waited for, which may be a
// function that finds it out then.
export async function until(what, ask, milliseconds = 30_000) {
  const end = Date.now() + milliseconds
  for (;;) {
    const answer = await ask()
    if (answer) return answer
    if (Date.now() > end) {
      const said = typeof what === 'function' ? what() : what
      throw new Error([`after ${milliseconds / 1000} s still not: ${said}`, ...witnesses.map((tell) => tell())].join('\n'))
    }
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}
