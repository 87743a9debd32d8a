//go:build !race

package compute_test

const raceDetector = false
