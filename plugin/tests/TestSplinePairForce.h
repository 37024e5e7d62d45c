/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_TESTSPLINEPAIRFORCE_H_
#define OPENMM_DIFFSIM_TESTSPLINEPAIRFORCE_H_

/*
 * What a SplinePairForce and a SegmentPropagator do on any platform. The file of a platform includes this and calls runTests().
 */
#include "Fluid.h"
#include "SegmentPropagator.h"
#include "SplinePairForce.h"
#include "openmm/Context.h"
#include "openmm/NonbondedForce.h"
#include "openmm/Platform.h"
#include "openmm/State.h"
#include "openmm/System.h"
#include "openmm/VerletIntegrator.h"
#include "openmm/internal/AssertionUtilities.h"
#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

typedef vector<Vec3> Vectors;

const int SKIPPED = 77; // what ctest takes for a test that could not run

/** Where the tests run. */
struct {
    string platform;
    map<string, string> properties;
    double tolerance; // of what is computed, relative to the largest number of its kind
} where;

/** A fluid with its System, force and Context. */
struct Simulation {
    explicit Simulation(const Fluid& fluid, bool onReference = false) : force(fluid.addTo(system)), integrator(0.001),
            context(system, integrator, Platform::getPlatform(onReference ? "Reference" : where.platform),
            onReference ? map<string, string>() : where.properties) {
        context.setPositions(fluid.positions);
    }
    System system;
    SplinePairForce& force;
    VerletIntegrator integrator;
    Context context;
};

vector<double> flatten(const Vectors& vectors) {
    vector<double> numbers;
    for (const Vec3& v : vectors)
        numbers.insert(numbers.end(), {v[0], v[1], v[2]});
    return numbers;
}

void assertClose(const vector<double>& expected, const vector<double>& found, double tolerance) {
    ASSERT_EQUAL(expected.size(), found.size());
    double largest = 0;
    for (double x : expected)
        largest = max(largest, abs(x));
    ASSERT(largest > 0);
    for (size_t i = 0; i < expected.size(); i++)
        if (!(abs(expected[i]-found[i]) <= tolerance*largest)) {
            stringstream details;
            details.precision(12);
            details << "number " << i << ": expected " << expected[i] << ", found " << found[i] << ", the largest being " << largest;
            throwException(__FILE__, __LINE__, details.str());
        }
}

void assertClose(const Vectors& expected, const Vectors& found, double tolerance) {
    assertClose(flatten(expected), flatten(found), tolerance);
}

template <class Body>
void assertRefused(const string& part, Body body) {
    try {
        body();
    }
    catch (const OpenMMException& error) {
        if (string(error.what()).find(part) == string::npos)
            throwException(__FILE__, __LINE__, "expected '"+part+"' in: "+error.what());
        return;
    }
    throwException(__FILE__, __LINE__, "nothing was refused, expected: "+part);
}

/** Vectors of order one, the same each time. */
Vectors makeDirections(int count, int seed) {
    mt19937 generator(seed);
    auto uniform = [&] { return 2*(generator()/4294967296.0)-1; };
    Vectors directions;
    for (int i = 0; i < count; i++) {
        double x = uniform(), y = uniform(), z = uniform();
        directions.push_back(Vec3(x, y, z));
    }
    return directions;
}

double dot(const Vectors& a, const Vectors& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++)
        sum += a[i].dot(b[i]);
    return sum;
}

const vector<Fluid::Box> BOXES = {Fluid::None, Fluid::Rectangular, Fluid::Triclinic};

// The helper is itself tested: its forces are the slopes of its energy.
void testFluid() {
    for (Fluid::Box box : BOXES) {
        Fluid fluid(box);
        Vectors direction = makeDirections(fluid.positions.size(), 3);
        double h = 1e-6, slope = (fluid.moved(direction, h).getEnergy(fluid.coefficients)-
                fluid.moved(direction, -h).getEnergy(fluid.coefficients))/(2*h);
        ASSERT_EQUAL_TOL(-slope, dot(fluid.getForces(fluid.coefficients), direction), 1e-7);
    }
}

void testEnergyAndForces() {
    for (Fluid::Box box : BOXES) {
        Fluid fluid(box);
        Simulation simulation(fluid);
        State state = simulation.context.getState(State::Energy | State::Forces);
        ASSERT_EQUAL_TOL(fluid.getEnergy(fluid.coefficients), state.getPotentialEnergy(), where.tolerance);
        assertClose(fluid.getForces(fluid.coefficients), state.getForces(), where.tolerance);
    }
}

void testSums() {
    for (Fluid::Box box : BOXES) {
        Fluid fluid(box);
        if (box == Fluid::Triclinic)
            fluid.bonds = {{0, 1}, {4, 5}, {20, 21}};
        Simulation simulation(fluid);
        PairSums sums;
        sums.includeBasis = sums.includeVirial = true;
        simulation.force.computeSums(simulation.context, PairFrames(), sums);
        assertClose(fluid.forEachCoefficient([&] (const Fluid::Coefficients& c) {
            return fluid.getEnergy(c);
        }), sums.basis, where.tolerance);

        // W = -3V dU/dV is minus the slope with the length of the box.

        double h = 1e-6;
        Fluid larger = fluid.scaled(1+h), smaller = fluid.scaled(1-h);
        assertClose(fluid.forEachCoefficient([&] (const Fluid::Coefficients& c) {
            return -(larger.getEnergy(c)-smaller.getEnergy(c))/(2*h);
        }), sums.virial, max(where.tolerance, 1e-6));
    }
}

void testHistograms() {
    for (Fluid::Box box : BOXES) {
        Fluid fluid(box);
        Simulation simulation(fluid);
        PairSums sums;
        sums.histograms.resize(2);
        sums.histograms[0].edges = {0.1, 0.25, 0.3, 0.5, 0.69}; // beyond the cutoff
        sums.histograms[1].edges = {0.0, 0.2, 0.4, 0.6};
        for (size_t i = 0; i < fluid.positions.size(); i++) {
            sums.histograms[0].selections.push_back(i%4);
            sums.histograms[0].groups.push_back(i%7 == 0 ? -1 : i/3);
            sums.histograms[1].selections.push_back(3);
        }
        simulation.force.computeSums(simulation.context, PairFrames(), sums);
        for (size_t h = 0; h < 2; h++) {
            const PairHistogram& histogram = sums.histograms[h];
            vector<long long> expected(histogram.edges.size()-1, 0);
            fluid.forEachPair([&] (int i, int j, const Vec3& delta, double r) {
                int a = histogram.selections[i], b = histogram.selections[j];
                if (histogram.groups.size() > 0 && histogram.groups[i] >= 0 && histogram.groups[i] == histogram.groups[j])
                    return;
                for (size_t bin = 0; bin < expected.size(); bin++)
                    if (histogram.edges[bin] <= r && r < histogram.edges[bin+1])
                        expected[bin] += ((a&1) && (b&2))+((a&2) && (b&1));
            });
            ASSERT_EQUAL_CONTAINERS(expected, sums.counts[h]);
        }
    }
}

void testProducts() {
    for (Fluid::Box box : BOXES) {
        Fluid fluid(box);
        Simulation simulation(fluid);
        Vectors v = makeDirections(fluid.positions.size(), 5), hessianProduct(v.size());
        vector<double> parameterProduct(3*(Fluid::NUM_KNOTS-2));
        simulation.force.computeProducts(simulation.context, PairFrames(), v.data(), hessianProduct.data(), parameterProduct.data());
        double h = 1e-6;
        Vectors forward = fluid.moved(v, h).getForces(fluid.coefficients);
        Vectors expected = fluid.moved(v, -h).getForces(fluid.coefficients);
        for (size_t i = 0; i < v.size(); i++)
            expected[i] = (expected[i]-forward[i])/(2*h);
        assertClose(expected, hessianProduct, max(10*where.tolerance, 1e-5)); // where a pair passes a knot, u'' has a kink
        assertClose(fluid.forEachCoefficient([&] (const Fluid::Coefficients& c) {
            return dot(fluid.getForces(c), v);
        }), parameterProduct, where.tolerance);
    }
}

// Derivatives at stored frames leave the Context alone.
void testFrames() {
    Fluid fluid(Fluid::Triclinic), other = fluid.scaled(1.1).moved(makeDirections(fluid.positions.size(), 6), 0.02);
    Simulation simulation(fluid);
    Vectors positions(fluid.positions), boxes(fluid.box);
    positions.insert(positions.end(), other.positions.begin(), other.positions.end());
    boxes.insert(boxes.end(), other.box.begin(), other.box.end());
    PairFrames frames;
    frames.numFrames = 2;
    frames.positions = positions.data();
    frames.boxes = boxes.data();
    PairSums sums;
    sums.includeBasis = true;
    simulation.force.computeSums(simulation.context, frames, sums);
    vector<double> expected;
    for (const Fluid& frame : {fluid, other})
        for (double energy : frame.forEachCoefficient([&] (const Fluid::Coefficients& c) { return frame.getEnergy(c); }))
            expected.push_back(energy);
    assertClose(expected, sums.basis, where.tolerance);
    assertClose(fluid.positions, simulation.context.getState(State::Positions).getPositions(), where.tolerance);
}

void testUpdateParameters() {
    Fluid fluid(Fluid::Rectangular);
    Simulation simulation(fluid);
    simulation.context.getState(State::Energy);
    for (vector<double>& c : fluid.coefficients)
        for (double& value : c)
            value = 0.5-2*value;
    for (int i = 0, p = 0; i < 2; i++)
        for (int j = i; j < 2; j++)
            simulation.force.setTypePairCoefficients(i, j, fluid.coefficients[p++]);
    for (size_t i = 0; i < fluid.types.size(); i++)
        simulation.force.setParticleType(i, fluid.types[i] = (i%3 == 0 ? 1 : fluid.types[i]));
    simulation.force.updateParametersInContext(simulation.context);
    State state = simulation.context.getState(State::Energy | State::Forces);
    ASSERT_EQUAL_TOL(fluid.getEnergy(fluid.coefficients), state.getPotentialEnergy(), where.tolerance);
    assertClose(fluid.getForces(fluid.coefficients), state.getForces(), where.tolerance);
}

/** An integrator, a start and a loss: all that fixes a segment and its gradient. */
class SegmentProblem {
public:
    SegmentProblem(const StepSplitting& splitting, bool isNoisy, bool hasChain) : fluid(Fluid::Triclinic, 12), splitting(splitting),
            hasChain(hasChain), n(fluid.positions.size()), velocities(makeDirections(n, 7)) {
        fluid.masses[3] = 0;
        velocities[3] = Vec3();
        for (vector<double>& c : fluid.coefficients)
            for (size_t k = 0; k < c.size(); k++)
                c[k] += 40*exp(-(double) k); // so that no pair meets at r = 0
        noise = makeDirections(STEPS*n, 8);
        for (Vec3& r : noise)
            r *= (isNoisy ? 0.1 : 0);
        for (Vectors* weights : {&positionWeights, &velocityWeights})
            *weights = makeDirections((STEPS+1)*n, weights == &positionWeights ? 9 : 10);
    }
    void integrate(Simulation& simulation) {
        positions.assign((STEPS+1)*n, Vec3());
        allVelocities = positions;
        copy(fluid.positions.begin(), fluid.positions.end(), positions.begin());
        copy(velocities.begin(), velocities.end(), allVelocities.begin());
        states.assign((STEPS+1)*6, 0.0);
        copy(chainState.begin(), chainState.end(), states.begin());
        SegmentPropagator(simulation.context, simulation.force, splitting, getChain()).integrate({STEPS, positions.data(),
                allVelocities.data(), states.data()}, hasChain ? nullptr : noise.data());
    }
    double getLoss() const {
        double loss = 0;
        for (size_t i = 0; i < positions.size(); i++)
            for (int axis = 0; axis < 3; axis++)
                loss += positionWeights[i][axis]*sin(positions[i][axis])+velocityWeights[i][axis]*pow(allVelocities[i][axis], 2);
        return loss;
    }
    SegmentGradient computeGradient(Simulation& simulation) const {
        Vectors gx(positions.size()), gv(positions.size());
        for (size_t i = 0; i < positions.size(); i++)
            for (int axis = 0; axis < 3; axis++) {
                gx[i][axis] = positionWeights[i][axis]*cos(positions[i][axis]);
                gv[i][axis] = 2*velocityWeights[i][axis]*allVelocities[i][axis];
            }
        SegmentGradientOptions options;
        options.includeNoise = true;
        return SegmentPropagator(simulation.context, simulation.force, splitting, getChain()).computeGradient({STEPS,
                positions.data(), allVelocities.data(), states.data()}, gx.data(), gv.data(), options);
    }
    const ChainThermostat* getChain() const {
        return hasChain ? &chain : nullptr;
    }
    static const int STEPS = 20;
    ChainThermostat chain = {200.0, 20.0, 33};
    Fluid fluid;
    StepSplitting splitting;
    bool hasChain;
    int n;
    Vectors velocities, noise, positionWeights, velocityWeights;
    vector<double> chainState = {0.1, -0.2, 0.3, 5.0, -3.0, 4.0};
    Vectors positions, allVelocities; // of all times
    vector<double> states;
};

/** The slope of the loss where some input of a problem is moved, by segments of the Reference platform. */
template <class Move>
double differentiate(const SegmentProblem& problem, Move move) {
    double h = 1e-6, losses[2];
    for (int side = 0; side < 2; side++) {
        SegmentProblem moved(problem);
        move(moved, side == 0 ? h : -h);
        Simulation simulation(moved.fluid, true);
        moved.integrate(simulation);
        losses[side] = moved.getLoss();
    }
    return (losses[0]-losses[1])/(2*h);
}

void addTo(Vectors& vectors, const Vectors& direction, double distance) {
    for (size_t i = 0; i < vectors.size(); i++)
        vectors[i] += direction[i]*distance;
}

void testSegment(const StepSplitting& splitting, bool isNoisy, bool hasChain) {
    SegmentProblem problem(splitting, isNoisy, hasChain), reference(problem);
    Simulation simulation(problem.fluid), onReference(problem.fluid, true);
    problem.integrate(simulation);
    reference.integrate(onReference);
    assertClose(reference.positions, problem.positions, 10*where.tolerance);
    assertClose(reference.allVelocities, problem.allVelocities, 100*where.tolerance);

    // The gradient along some direction of each of the inputs.

    SegmentGradient gradient = reference.computeGradient(simulation);
    double tolerance = max(100*where.tolerance, 1e-6);
    Vectors d = makeDirections(problem.n, 11), dNoise = makeDirections(problem.noise.size(), 12);
    d[3] = Vec3();
    for (int step = 0; step < SegmentProblem::STEPS; step++)
        dNoise[step*problem.n+3] = Vec3();
    ASSERT_EQUAL_TOL(differentiate(reference, [&] (SegmentProblem& p, double h) { addTo(p.fluid.positions, d, h); }),
            dot(gradient.positions, d), tolerance);
    ASSERT_EQUAL_TOL(differentiate(reference, [&] (SegmentProblem& p, double h) { addTo(p.velocities, d, h); }),
            dot(gradient.velocities, d), tolerance);
    double expected = differentiate(reference, [&] (SegmentProblem& p, double h) {
        for (int k = 0; k < 24; k++)
            p.fluid.coefficients[k/8][k%8] += h*(1+k%3);
    }), found = 0;
    for (int k = 0; k < 24; k++)
        found += gradient.parameters[k]*(1+k%3);
    ASSERT_EQUAL_TOL(expected, found, tolerance);
    if (isNoisy)
        ASSERT_EQUAL_TOL(differentiate(reference, [&] (SegmentProblem& p, double h) { addTo(p.noise, dNoise, h); }),
                dot(gradient.noise, dNoise), tolerance);
    if (hasChain)
        ASSERT_EQUAL_TOL(differentiate(reference, [&] (SegmentProblem& p, double h) { p.chainState[3] += 1000*h; }),
                1000*gradient.chainState[3], tolerance);
}

void testSegments() {
    double dt = 0.004;
    testSegment({dt, dt, 1, 0, 0}, false, false);
    testSegment({dt/2, dt, 1, 0, dt/2}, false, false);
    testSegment({dt, dt/2, exp(-5*dt), dt/2, 0}, true, false);
    testSegment({dt, dt/2, 1, dt/2, 0}, false, true);
}

// By hand: one step of velocity Verlet.
void testStep() {
    Fluid fluid(Fluid::Rectangular);
    Simulation simulation(fluid);
    double dt = 0.002;
    int n = fluid.positions.size();
    Vectors x(2*n), v(2*n), expected(fluid.positions), f = fluid.getForces(fluid.coefficients);
    copy(fluid.positions.begin(), fluid.positions.end(), x.begin());
    SegmentPropagator(simulation.context, simulation.force, {dt/2, dt, 1, 0, dt/2}).integrate({1, x.data(), v.data()});
    for (int i = 0; i < n; i++)
        expected[i] += f[i]*(dt*dt/2/fluid.masses[i]);
    assertClose(expected, Vectors(x.begin()+n, x.end()), 1e-3*where.tolerance);
    Fluid end(fluid);
    end.positions = expected;
    Vectors last = end.getForces(fluid.coefficients);
    for (int i = 0; i < n; i++)
        expected[i] = (f[i]+last[i])*(dt/2/fluid.masses[i]);
    assertClose(expected, Vectors(v.begin()+n, v.end()), where.tolerance);
}

Vectors computeForces(Context& context) {
    return context.getState(State::Forces).getForces();
}

// A box that is not that of the Context, though no particle has moved, where OpenMM keeps a neighbor list for this force or for
// another one. Forces are those of the Reference platform, in the segment and after it.
void testBoxOfSegment(bool hasNonbondedForce) {
    const int side = 13; // platforms of GPUs have no lists for 2000 particles or fewer
    Fluid fluid(Fluid::Rectangular, 2);
    fluid.exclusions.clear();
    fluid.positions.clear();
    fluid.types.clear();
    fluid.masses.assign(side*side*side, 12.0);
    fluid.box = {Vec3(6, 0, 0), Vec3(0, 6, 0), Vec3(0, 0, 6)}; // no pair is within the cutoff through the faces
    Vectors shifts = makeDirections(side*side*side, 13);
    for (int i = 0; i < side*side*side; i++) {
        fluid.positions.push_back(Vec3(i%side, (i/side)%side, i/(side*side))*0.4+shifts[i]*0.1);
        fluid.types.push_back(i%2);
    }
    Simulation onReference(fluid, true), simulation(fluid);
    if (hasNonbondedForce)
        for (Simulation* s : {&simulation, &onReference}) {
            NonbondedForce* other = new NonbondedForce();
            for (size_t i = 0; i < fluid.positions.size(); i++)
                other->addParticle(0.0, 0.2, 1.0);
            other->setNonbondedMethod(NonbondedForce::CutoffPeriodic);
            other->setCutoffDistance(Fluid::CUTOFF);
            s->system.addForce(other);
            s->context.reinitialize();
            s->context.setPositions(fluid.positions);
        }
    double tolerance = max(where.tolerance, 1e-6); // NonbondedForce has parameters in single precision on GPUs
    Vectors before = computeForces(onReference.context);
    assertClose(before, computeForces(simulation.context), tolerance);
    Vec3 box[] = {Vec3(5.2, 0, 0), Vec3(0, 5.3, 0), Vec3(0, 0, 5.4)}; // where many are
    onReference.context.setPeriodicBoxVectors(box[0], box[1], box[2]);
    Vectors expected = computeForces(onReference.context);
    double change = 0;
    for (size_t i = 0; i < expected.size(); i++)
        change = max(change, Fluid::norm(expected[i]-before[i]));
    ASSERT(change > 1);
    int n = fluid.positions.size();
    double dt = 1e-9;
    Vectors x(2*n), v(2*n), found(n);
    copy(fluid.positions.begin(), fluid.positions.end(), x.begin());
    SegmentPropagator(simulation.context, simulation.force, {dt, dt, 1, 0, 0}, nullptr, box).integrate({1, x.data(), v.data()});
    for (int i = 0; i < n; i++)
        found[i] = v[n+i]*(12.0/dt);
    assertClose(expected, found, tolerance);
    assertClose(before, computeForces(simulation.context), tolerance);
}

void testRefused() {
    Fluid fluid(Fluid::Rectangular);
    Simulation simulation(fluid);
    Vec3 narrow[] = {Vec3(1, 0, 0), Vec3(0, 1, 0), Vec3(0, 0, 1)};
    int n = fluid.positions.size();
    Vectors x(2*n), v(2*n);
    StepSplitting verlet = {0.002, 0.002, 1, 0, 0};
    assertRefused("half the periodic box size", [&] {
        SegmentPropagator(simulation.context, simulation.force, verlet, nullptr, narrow).integrate({1, x.data(), v.data()});
    });
    v[0] = Vec3(1e20, 0, 0);
    assertRefused("the segment exploded at step 1", [&] {
        SegmentPropagator(simulation.context, simulation.force, verlet).integrate({1, x.data(), v.data()});
    });
    assertClose(fluid.positions, simulation.context.getState(State::Positions).getPositions(), where.tolerance);
    ChainThermostat chain = {300.0, 10.0, 3*n};
    assertRefused("a last kick of 0.001 ps", [&] {
        SegmentPropagator(simulation.context, simulation.force, {0.001, 0.002, 1, 0, 0.001}, &chain);
    });
    chain.yoshidaSuzuki = 4;
    assertRefused("1, 3, 5 or 7 Yoshida-Suzuki weights, got 4", [&] { chain.check(); });
    System constrained;
    SplinePairForce& force = fluid.addTo(constrained);
    constrained.addConstraint(0, 1, 0.3);
    VerletIntegrator integrator(0.001);
    Context context(constrained, integrator, Platform::getPlatform(where.platform), where.properties);
    assertRefused("no constraints, but the System has 1", [&] { SegmentPropagator(context, force, verlet); });
}

/** Run all tests on a platform, in the precision that may be named as an argument. */
int runTests(const string& platform, int argc, char* argv[]) {
    string precision = (argc > 1 ? argv[1] : platform == "Reference" ? "double" : "single");
    where = {platform, {}, precision == "double" ? 1e-8 : 1e-4};
    if (argc > 1)
        where.properties["Precision"] = precision;
    try {
        Platform::loadPluginLibrary(DIFFSIM_REFERENCE_LIBRARY);
        if (platform != "Reference") {
            Platform::loadPluginLibrary(OPENMM_PLATFORM_LIBRARY);
            Platform::loadPluginLibrary(DIFFSIM_PLATFORM_LIBRARY);
        }
        Simulation(Fluid(Fluid::None));
    }
    catch (const exception& error) {
        cout << "skipped, for there is no such platform, device or precision: " << error.what() << endl;
        return SKIPPED;
    }
    const vector<pair<string, function<void ()> > > tests = {
        {"fluid", testFluid},
        {"energy and forces", testEnergyAndForces},
        {"sums", testSums},
        {"histograms", testHistograms},
        {"products", testProducts},
        {"frames", testFrames},
        {"update of parameters", testUpdateParameters},
        {"step", testStep},
        {"segments", testSegments},
        {"box of a segment", [] { testBoxOfSegment(false); }},
        {"box of a segment, with a NonbondedForce", [] { testBoxOfSegment(true); }},
        {"refused", testRefused},
    };
    for (auto& test : tests)
        try {
            test.second();
        }
        catch (const exception& error) {
            cout << test.first << ": " << error.what() << endl;
            return 1;
        }
    cout << "Done" << endl;
    return 0;
}

#endif /*OPENMM_DIFFSIM_TESTSPLINEPAIRFORCE_H_*/
