//go:build race

package compute_test

// The programs that tests start are built like the tests themselves.
const raceDetector = true
